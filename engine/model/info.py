"""What `ggserve info` prints: the contents of a model file, without loading it.

`describe` returns plain data (all of it JSON) with strings as they are in the file; `render` returns text for
a terminal, with control characters from the file escaped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar

from engine import architectures
from engine.cache.kv_cache import bytes_per_cell
from engine.errors import ConfigError, ModelError
from engine.gguf import GGMLType, GGUFFile, printable, validate_model
from engine.gguf.validate import NO_VOCABULARY, has_recurrent_layers, token_ids
from engine.quantize.mixes import MIXES
from engine.units import format_bytes

T = TypeVar("T")
_GENERAL = ("architecture", "name", "license")
SHOWN_ELEMENTS = 8
SHOWN_STRING = 8192
TOKEN_TYPES = ("undefined", "normal", "unknown", "control", "user-defined", "unused", "byte")


def describe(
    path: str | os.PathLike[str],
    tensors: bool = False,
    tokens: bool = False,
    context: int | None = None,
    kv_type: str = "f16",
) -> dict[str, Any]:
    """The contents of a file. Raises ModelError if it is not a valid GGUF file.

    An inconsistent model in a valid file is described as far as possible; `problem` says what is wrong with
    it.
    """
    if kv_type.upper() not in GGMLType.__members__:
        raise ConfigError(f"unknown cache type {kv_type}")
    with GGUFFile.open(path) as gguf:
        contents: dict[str, Any] = {
            "path": gguf.path,
            "file_size": gguf.nbytes,
            "parts": len(gguf.parts),
            "gguf_version": gguf.version,
            "problem": _problem(gguf),
            "architecture": _or_none(lambda: gguf.arch),
            "name": _or_none(lambda: gguf.get_str("general.name", None)),
            "license": _or_none(lambda: gguf.get_str("general.license", None)),
            "file_type": file_type(gguf),
            **_sizes(gguf),
            "hyperparameters": _hyperparameters(gguf),
            "tokenizer": _or_none(lambda: _tokenizer(gguf)),
            "memory": _or_none(lambda: _memory(gguf, context, kv_type)),
            "metadata": {key: _value(gguf, key) for key in gguf.metadata},
        }
        if tensors:
            contents["tensors"] = [
                {
                    "name": t.name,
                    "type": t.type.name,
                    "shape": list(t.shape),
                    "offset": t.offset,
                    "bytes": t.nbytes,
                }
                for t in gguf.tensors.values()
            ]
        if tokens:
            contents["tokens"] = _tokens(gguf)
        return contents


def _or_none(read: Callable[[], T]) -> T | None:
    """None for values that cannot be read: `problem` reports them once."""
    try:
        return read()
    except ModelError:
        return None


def file_type(gguf: GGUFFile) -> str | None:
    """The name for the number in `general.file_type`."""
    number = _or_none(lambda: gguf.get_int("general.file_type", None))
    names = {known: name for name, (known, _) in MIXES.items()}
    return None if number is None else f"{names.get(number, 'unknown')} ({number})"


def _problem(gguf: GGUFFile) -> str | None:
    try:
        validate_model(gguf)
    except ModelError as error:
        return str(error).removeprefix(f"{printable(gguf.path, 400)}: ")
    return None


def _sizes(gguf: GGUFFile) -> dict[str, Any]:
    n_params = sum(t.n_elements for t in gguf.tensors.values())
    n_bytes = sum(t.nbytes for t in gguf.tensors.values())
    types: dict[str, dict[str, int]] = {}
    for t in gguf.tensors.values():
        entry = types.setdefault(t.type.name, {"tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += t.nbytes
    return {
        "n_tensors": len(gguf.tensors),
        "n_params": n_params,
        "weight_bytes": n_bytes,
        "bits_per_weight": round(8 * n_bytes / n_params, 2) if n_params else None,
        "quantization": dict(sorted(types.items(), key=lambda item: -item[1]["bytes"])),
    }


def _hyperparameters(gguf: GGUFFile) -> dict[str, Any]:
    prefix = f"{_or_none(lambda: gguf.arch)}."
    return {key.removeprefix(prefix): _value(gguf, key) for key in gguf.metadata if key.startswith(prefix)}


def _value(gguf: GGUFFile, key: str) -> Any:
    """A value for display: long arrays and strings are truncated, floats that JSON lacks become strings."""
    entry = gguf.metadata.entries[key]
    try:
        value = gguf.metadata.head(key, SHOWN_ELEMENTS)
    except ModelError:
        return {"error": "not UTF-8"}
    if isinstance(value, list):
        items = [_plain(v) for v in value]
        if entry.n == len(items):
            return items
        return {"array_of": entry.type.name.lower(), "length": entry.n, "first": items}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, str) and len(value) > SHOWN_STRING:
        return value[:SHOWN_STRING] + f"… ({len(value)} characters)"
    return value


def _tokenizer(gguf: GGUFFile) -> dict[str, Any]:
    model = gguf.get_str("tokenizer.ggml.model")
    pieces = [] if model in NO_VOCABULARY else gguf.get_strs("tokenizer.ggml.tokens")
    merges = gguf.value_type("tokenizer.ggml.merges")
    special = {}
    for name, number in token_ids(gguf).items():
        special[name] = {"id": number, "text": pieces[number] if 0 <= number < len(pieces) else None}
    templates = [key for key in gguf.metadata if key.startswith("tokenizer.chat_template")]
    return {
        "model": model,
        "pre": gguf.get_str("tokenizer.ggml.pre", None),
        "n_tokens": len(pieces),
        "n_merges": (merges[1] if merges else None) or 0,
        "special": special,
        "add_bos": gguf.get_bool("tokenizer.ggml.add_bos_token", None),
        "add_eos": gguf.get_bool("tokenizer.ggml.add_eos_token", None),
        "chat_template": "tokenizer.chat_template" in templates,
        "chat_templates": [key.removeprefix("tokenizer.chat_template").lstrip(".") for key in templates],
    }


def _tokens(gguf: GGUFFile) -> list[dict[str, Any]]:
    pieces = _or_none(lambda: gguf.get_strs("tokenizer.ggml.tokens", None, [])) or []
    types = _or_none(lambda: gguf.get_ints("tokenizer.ggml.token_type", len(pieces), None))
    scores = _or_none(lambda: gguf.get_floats("tokenizer.ggml.scores", len(pieces), None))
    rows = []
    for i, text in enumerate(pieces):
        token: dict[str, Any] = {"id": i, "text": _plain(text)}
        if types is not None:
            token["type"] = TOKEN_TYPES[types[i]] if 0 <= types[i] < len(TOKEN_TYPES) else types[i]
        if scores is not None:
            token["score"] = scores[i]
        rows.append(token)
    return rows


def _memory(gguf: GGUFFile, context: int | None, kv_type: str) -> dict[str, Any]:
    """Bytes of the weights and of one session's KV cache, without the working memory of a batch."""
    arch = gguf.arch
    n_blocks = gguf.get_int(f"{arch}.block_count", min=1, max=4096)
    n_mtp = gguf.get_int(f"{arch}.nextn_predict_layers", 0, min=0, max=n_blocks - 1)  # not loaded
    width = gguf.get_int(f"{arch}.embedding_length", min=1)
    heads = gguf.get_ints(f"{arch}.attention.head_count", n_blocks, min=0)
    kv_heads = gguf.get_ints(f"{arch}.attention.head_count_kv", n_blocks, heads, min=0)[: n_blocks - n_mtp]
    state, recurrent = _recurrent(gguf)
    kv_heads = [0 if i in recurrent else n for i, n in enumerate(kv_heads)]
    head_dim = width // max(*heads, 1)
    dims = [gguf.get_int(f"{arch}.attention.{k}_length", head_dim, min=1) for k in ("key", "value")]
    if f"{arch}.attention.kv_lora_rank" in gguf.metadata:  # values are the first part of the keys
        dims = dims[:1]
    kind = GGMLType[kv_type.upper()]
    weights = sum(t.nbytes for t in gguf.tensors.values())
    trained = gguf.get_int(f"{arch}.context_length", min=1)
    n = trained if context is None else context
    sizes = {"context": n, "context_trained": trained, "kv_type": kv_type, "weights": weights}
    if any(kv_heads) and any(dim % kind.block_size for dim in dims):
        return sizes | {
            "problem": f"{kv_type} stores blocks of {kind.block_size}, but heads have {dims[0]} elements"
        }
    hp = _or_none(lambda: architectures.get(arch).hparams(gguf))
    if not gguf.get_bool(f"{arch}.attention.causal", hp is None or hp.causal):
        return sizes | {"kv_per_token": 0, "kv": 0, "total": weights}
    per_token = sum(kind.row_size(dim * h) for h in kv_heads for dim in dims)
    if hp is not None:  # layers may differ, or read others' keys and values
        per_token = sum(bytes_per_cell(hp, kv_type))
    if state:
        sizes["state"] = state
    if hp is not None and 0 < hp.cache_window < n:
        sizes["window"] = hp.cache_window
    return sizes | {"kv_per_token": per_token, "kv": per_token * n, "total": weights + state + per_token * n}


def _recurrent(gguf: GGUFFile) -> tuple[int, set[int]]:
    """Bytes of the recurrent states of one session, and the layers that have no keys and values."""
    if not has_recurrent_layers(gguf) or gguf.arch not in architectures.names():
        return 0, set()
    hp = architectures.get(gguf.arch).hparams(gguf)
    return hp.state_bytes, {i for i in range(hp.n_layer) if not hp.attends(i)}


def render(contents: dict[str, Any]) -> str:
    """The description as text."""
    lines = [printable(contents["path"], 400)]
    if contents["problem"]:
        lines.append(f"PROBLEM: {contents['problem']}")

    def section(title: str, rows: list[tuple[str, str]]) -> None:
        if rows:
            width = max(len(name) for name, _ in rows)
            lines.extend(["", title, *(f"  {name.ljust(width)}  {text}".rstrip() for name, text in rows)])

    section("model", _model_rows(contents))
    total = contents["weight_bytes"] or 1
    section(
        "quantization",
        [
            (name, f"{t['tensors']} tensors, {format_bytes(t['bytes'])} ({100 * t['bytes'] / total:.1f} %)")
            for name, t in contents["quantization"].items()
        ],
    )
    section("hyperparameters", [(printable(k), _shown(v)) for k, v in contents["hyperparameters"].items()])
    section("tokenizer", _tokenizer_rows(contents["tokenizer"]))
    section("memory", _memory_rows(contents["memory"]))
    general = (f"general.{key}" for key in (*_GENERAL, "file_type"))
    shown_above = (f"{contents['architecture']}.", "tokenizer.ggml.", *general)
    other = {k: v for k, v in contents["metadata"].items() if not k.startswith(shown_above)}
    section("other keys", [(printable(k), _shown(v)) for k, v in other.items()])
    if "tensors" in contents:
        names = [(printable(t["name"]), t) for t in contents["tensors"]]
        rows = [
            (n, f"{t['type']:8}{format_bytes(t['bytes']):>11}  {' x '.join(map(str, t['shape']))}")
            for n, t in names
        ]
        section("tensors", rows)
    if "tokens" in contents:
        section("tokens", [(str(t["id"]), _token_text(t)) for t in contents["tokens"]])
    return "\n".join(lines) + "\n"


def _model_rows(contents: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(key, contents[key]) for key in _GENERAL if contents[key] is not None]
    shown = [(key, printable(value)) for key, value in rows]
    if contents["file_type"] is not None:
        shown.append(("file type", contents["file_type"]))
    n_bytes = contents["file_size"]
    size = f"{format_bytes(n_bytes)} ({n_bytes} bytes), GGUF version {contents['gguf_version']}"
    n = contents["n_params"]
    if n:
        short = next((f"{n / size:.2f} {unit}" for unit, size in _LARGE if n >= size), str(n))
        shown.append(("parameters", f"{short} ({n}) in {contents['n_tensors']} tensors"))
        shown.append(
            ("weights", f"{format_bytes(contents['weight_bytes'])}, {contents['bits_per_weight']} bits each")
        )
    return [*shown, ("file" if contents["parts"] == 1 else f"{contents['parts']} files", size)]


_LARGE = (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3))


def _tokenizer_rows(tokenizer: dict[str, Any] | None) -> list[tuple[str, str]]:
    if tokenizer is None:
        return []
    pre = f", pre-tokenizer {printable(tokenizer['pre'])}" if tokenizer["pre"] is not None else ""
    merges = f", {tokenizer['n_merges']} merges" if tokenizer["n_merges"] else ""
    special = (
        f"{name} {token['id']}" + (f" {printable(repr(token['text']))}" if token["text"] is not None else "")
        for name, token in tokenizer["special"].items()
    )
    names = [printable(name) for name in tokenizer["chat_templates"] if name]
    template = "yes" if tokenizer["chat_template"] else "no"
    return [
        ("kind", printable(tokenizer["model"]) + pre),
        ("size", f"{tokenizer['n_tokens']} tokens{merges}"),
        ("special", ", ".join(special)),
        ("chat template", template + (f" ({', '.join(names)})" if names else "")),
    ]


def _memory_rows(memory: dict[str, Any] | None) -> list[tuple[str, str]]:
    if memory is None:
        return []
    trained = f"{memory['context']} tokens, trained with {memory['context_trained']}"
    rows = [("context", trained), ("weights", format_bytes(memory["weights"]))]
    if "problem" in memory:
        return [*rows, ("cache", memory["problem"])]
    if state := memory.get("state"):
        rows.append(("states", f"{format_bytes(state)} of recurrent layers for each session and checkpoint"))
        rows.append(("drafts", "none: such a state cannot be rolled back (--spec-type has no effect)"))
    if not memory["kv_per_token"] and not state:
        return [*rows, ("cache", "none: an encoder keeps nothing between texts")]
    per_token = format_bytes(memory["kv_per_token"])
    cache = f"{format_bytes(memory['kv'])} as {memory['kv_type']} ({per_token} for each token)"
    if window := memory.get("window"):
        cache = f"at most {cache}: layers with a window of {window} tokens keep less (--plan)"
    return [
        *rows,
        ("cache", cache),
        ("together", f"{format_bytes(memory['total'])} and the working memory of a batch"),
    ]


def _token_text(token: dict[str, Any]) -> str:
    extra = [str(token[key]) for key in ("type", "score") if key in token and token[key] != "normal"]
    return "  ".join([printable(repr(token["text"])), *extra])


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "array_of" in value:
        first = ", ".join(map(_shown, value["first"]))
        return printable(f"{value['length']} x {value['array_of']}: {first}, …")
    if isinstance(value, dict):
        return f"({value['error']})"
    if isinstance(value, list):
        return printable(f"[{', '.join(map(_shown, value))}]")
    if isinstance(value, float):
        return f"{value:.7g}"
    return printable(value if isinstance(value, str) else str(value))
