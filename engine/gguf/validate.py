"""Checks what a sound container says about its model: required keys, ranges, and values that must agree.

These are the values that C code would trust with an assertion or an index. What an architecture requires
beyond them (which tensors, of which shape) is checked by `engine.model.loader`.
"""

from __future__ import annotations

import re

from engine.gguf.reader import GGUFFile
from engine.gguf.report import printable
from engine.gguf.types import FLOAT_TYPES, INT_TYPES

# Sane limits: several times the largest model known.
MAX_LAYERS = 4096
MAX_WIDTH = 1 << 20
MAX_FEED_FORWARD = 1 << 24
MAX_HEADS = 1 << 14
MAX_HEAD_DIM = 1 << 14
MAX_CONTEXT = 1 << 28
MAX_VOCAB = 1 << 21
MAX_EXPERTS = 4096
MAX_TOKEN_BYTES = 1 << 16

NO_TOKEN = (-1, 0xFFFFFFFF)  # how converters write "there is none"
MAX_TOKEN_TYPE = 6  # undefined, normal, unknown, control, user-defined, unused, byte
NO_VOCABULARY = ("no_vocab", "none")


def validate_model(gguf: GGUFFile) -> None:
    """Checks hyperparameters, tokenizer and the embedding's shape. Raises ModelError."""
    arch = _architecture(gguf)
    kind = gguf.get_str("general.type", "model")
    if kind != "model":
        gguf.fail(f"is of type '{printable(kind)}', not a model that can be served alone")
    if not gguf.tensors:
        gguf.fail("has no tensors (a vocabulary only?)")
    _floats(gguf, arch)
    n_layers = gguf.get_int(f"{arch}.block_count", min=1, max=MAX_LAYERS)
    width = gguf.get_int(f"{arch}.embedding_length", min=1, max=MAX_WIDTH)
    gguf.get_int(f"{arch}.context_length", min=1, max=MAX_CONTEXT)
    gguf.get_ints(f"{arch}.feed_forward_length", n_layers, None, min=0, max=MAX_FEED_FORWARD)
    _attention(gguf, arch, n_layers, width)
    _experts(gguf, arch)
    n_vocab = validate_tokenizer(gguf)
    _embedding(gguf, width, n_vocab)


def _architecture(gguf: GGUFFile) -> str:
    arch = gguf.arch
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", arch):
        gguf.fail(
            f"key 'general.architecture' is '{printable(arch)}', which is not a valid architecture name"
        )
    return arch


def _floats(gguf: GGUFFile, arch: str) -> None:
    """No number of the architecture is NaN or infinite, no epsilon 0: it would only show as NaN logits."""
    for key, entry in gguf.metadata.entries.items():
        if not key.startswith(f"{arch}."):
            continue
        if key.endswith("_epsilon"):
            epsilon = gguf.get_float(key)
            if not 0 < epsilon <= 1:
                gguf.fail(f"key '{printable(key)}' is {epsilon}; it must be above 0 and at most 1")
        elif entry.type in FLOAT_TYPES and entry.n is None:  # in arrays, -inf has a use (Gemma 3n)
            gguf.get_float(key)
    for key in (f"{arch}.rope.freq_base", f"{arch}.rope.freq_base_swa"):
        base = gguf.get_float(key, None)
        if base is not None and base <= 0:
            gguf.fail(f"key '{key}' is {base}; it must be above 0")
    gguf.get_float(f"{arch}.rope.scaling.factor", None, min=0)
    gguf.get_int(f"{arch}.rope.scaling.original_context_length", None, min=0, max=MAX_CONTEXT)
    gguf.get_int(f"{arch}.attention.temperature_length", None, min=1, max=MAX_CONTEXT)  # it divides positions
    gguf.get_str(f"{arch}.rope.scaling.type", None)


def _attention(gguf: GGUFFile, arch: str, n_layers: int, width: int) -> None:
    least = 0 if has_recurrent_layers(gguf) else 1
    heads = gguf.get_ints(f"{arch}.attention.head_count", n_layers, min=least, max=MAX_HEADS)
    kv_heads = gguf.get_ints(f"{arch}.attention.head_count_kv", n_layers, heads, min=least, max=MAX_HEADS)
    for i, (n, n_kv) in enumerate(zip(heads, kv_heads, strict=True)):
        if n_kv and n % n_kv:
            gguf.fail(f"layer {i} has {n} heads, which {n_kv} key-value heads cannot share evenly")
    head_dim = gguf.get_int(f"{arch}.attention.key_length", None, min=1, max=MAX_HEAD_DIM)
    gguf.get_int(f"{arch}.attention.value_length", None, min=1, max=MAX_HEAD_DIM)
    if head_dim is None:
        n = max(*heads, 1)
        if width % n:
            gguf.fail(f"{n} heads do not divide the width {width}, and there is no key_length")
        head_dim = width // n
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        rope_dims = gguf.get_int(f"{arch}.{key}", None)
        if rope_dims is not None and not (0 < rope_dims <= head_dim and rope_dims % 2 == 0):
            gguf.fail(f"key '{arch}.{key}' is {rope_dims}; it must be even, at most {head_dim}")
    window = gguf.value_type(f"{arch}.attention.sliding_window")
    if window is not None and window[0] in INT_TYPES:
        gguf.get_ints(f"{arch}.attention.sliding_window", n_layers, min=0, max=MAX_CONTEXT)


def has_recurrent_layers(gguf: GGUFFile) -> bool:
    """Whether some layers may have a recurrent state in place of attention."""
    arch = gguf.arch
    return f"{arch}.ssm.conv_kernel" in gguf.metadata or f"{arch}.shortconv.l_cache" in gguf.metadata


def _experts(gguf: GGUFFile, arch: str) -> None:
    count = gguf.get_int(f"{arch}.expert_count", 0, min=0, max=MAX_EXPERTS)
    used = gguf.get_int(f"{arch}.expert_used_count", 0, min=0, max=MAX_EXPERTS)
    if used > count:
        gguf.fail(f"{used} experts are used for a token, but there are {count}")
    if count and not used:
        gguf.fail(f"there are {count} experts, but none is used for a token")


def _embedding(gguf: GGUFFile, width: int, n_vocab: int) -> None:
    info = gguf.tensors.get("token_embd.weight")
    if info is None:
        return
    rows = info.shape[1] if len(info.shape) == 2 else 0
    if info.shape[0] != width or not 1 <= rows <= MAX_VOCAB or (n_vocab and rows != n_vocab):
        gguf.fail(
            f"tensor 'token_embd.weight' has shape {list(info.shape)}; "
            f"the header requires [{width}, {n_vocab or 'any'}]"
        )


def token_ids(gguf: GGUFFile) -> dict[str, int]:
    """The special tokens by name (`bos`, `eos`, `pad`, `fim_pre`, …), without those declared absent."""
    ids = {}
    for key in gguf.metadata:
        if match := re.fullmatch(r"tokenizer\.ggml\.(\w+)_token_id", key):
            value = gguf.get_int(key)
            if value not in NO_TOKEN:
                # two names of one thing, from before the converters agreed
                ids[{"seperator": "separator", "padding": "pad"}.get(match[1], match[1])] = value
    return ids


def validate_tokenizer(gguf: GGUFFile) -> int:
    """Checks the vocabulary's arrays against each other. Returns its size, 0 if the model has none."""
    model = gguf.get_str("tokenizer.ggml.model")
    if model in NO_VOCABULARY:
        return 0
    tokens = gguf.get_strs("tokenizer.ggml.tokens")
    n_vocab = len(tokens)
    if not 1 <= n_vocab <= MAX_VOCAB:
        gguf.fail(f"key 'tokenizer.ggml.tokens' has {n_vocab} tokens; expected 1 to {MAX_VOCAB}")
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN_BYTES:
        gguf.fail(f"key 'tokenizer.ggml.tokens' has a token of {len(longest)} characters")
    _per_token(gguf, "scores", n_vocab)
    _per_token(gguf, "token_type", n_vocab)
    gguf.get_floats("tokenizer.ggml.scores", n_vocab, None)
    types = gguf.get_ints("tokenizer.ggml.token_type", n_vocab, [0])
    if min(types) < 0 or max(types) > MAX_TOKEN_TYPE:
        bad = next(i for i, t in enumerate(types) if not 0 <= t <= MAX_TOKEN_TYPE)
        gguf.fail(f"key 'tokenizer.ggml.token_type' has the unknown type {types[bad]} at index {bad}")
    gguf.get_strs("tokenizer.ggml.merges", None, None)
    for name, value in token_ids(gguf).items():
        if not 0 <= value < n_vocab:
            gguf.fail(f"the special token {name} has id {value}, but the vocabulary has {n_vocab} tokens")
    for name in ("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix"):
        gguf.get_bool(f"tokenizer.ggml.{name}", None)
    gguf.get_bool("tokenizer.ggml.remove_extra_whitespaces", None)
    gguf.get_str("tokenizer.ggml.pre", None)
    gguf.get_str("tokenizer.chat_template", None)
    return n_vocab


def _per_token(gguf: GGUFFile, name: str, n_vocab: int) -> None:
    kind = gguf.value_type(f"tokenizer.ggml.{name}")
    if kind is not None and kind[1] != n_vocab:
        has = "no array" if kind[1] is None else f"{kind[1]} elements"
        gguf.fail(f"key 'tokenizer.ggml.{name}' has {has}, but the vocabulary has {n_vocab} tokens")
