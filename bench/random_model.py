"""Random-weight LLaMA files in TinyLlama's 1.1B shape, to measure speed without downloading a model.

Speed does not depend on what the weights say, only on their types and shapes. Blocks are written
directly (random quants, plausible scales), so a file takes seconds. The types per tensor are those
that `llama-quantize` gives: in Q4_0 files the head is Q6_K. Rows of the head for control and byte
tokens are zero, so that every generated token is text and no answer ends by itself.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

FORMAT = 2  # part of the file name: raise it when what is written changes
N_SPECIAL = 3 + 256  # <unk>, <s>, </s> and the byte tokens

Q = gguf.GGMLQuantizationType
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    name: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    context: int = 2048


SHAPES = {
    "1.1B": Shape("1.1B", 22, 2048, 32, 4, 5632, 32000),
    "17M": Shape("17M", 6, 384, 6, 6, 1024, 8000),
    "tiny": Shape("tiny", 2, 256, 4, 2, 512, 2048),
}
TYPES = {"q4_0": (Q.Q4_0, Q.Q6_K), "q8_0": (Q.Q8_0, Q.Q8_0), "f16": (Q.F16, Q.F16)}
FILE_TYPES = {
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
}


def pieces(n: int) -> tuple[list[str], list[float], list[int]]:
    """A SentencePiece-like vocabulary of n made-up ASCII words: (tokens, scores, types)."""
    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁"]
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, kind.NORMAL]
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    tokens += letters
    vowels, consonants = "aeiou", "bcdfghjklmnpqrstvwz"
    syllables = [c + v for c in consonants for v in vowels]
    words = iter(
        w
        for a in syllables
        for b in ["", *syllables]
        for c in ["", "n", "r", "s"]
        for w in (f"{a}{b}{c}", f"▁{a}{b}{c}")
    )
    seen = set(tokens)
    while len(tokens) < n:
        word = next(words)
        if word not in seen:
            seen.add(word)
            tokens.append(word)
    types += [kind.NORMAL] * (n - len(types))
    scores = [0.0] * N_SPECIAL + [-float(i) for i in range(n - N_SPECIAL)]
    return tokens, scores, [int(t) for t in types]


def _scales(rng: np.random.Generator, n: int, value: float) -> Bytes:
    """n f16 block scales around `value`, as bytes [n, 2]."""
    return (value * rng.uniform(0.7, 1.3, n)).astype("<f2").view(np.uint8).reshape(n, 2)


# No nibble of value 0 (it means -8): quants -7..7 have mean zero, so activations do not drift.
_NIBBLES = np.array([(b if b & 15 else b | 8) | (0 if b >> 4 else 128) for b in range(256)], np.uint8)


def blocks(rng: np.random.Generator, kind: Q, rows: int, cols: int, std: float) -> Bytes:
    """Random blocks of one matrix, [rows, bytes per row], elements of deviation `std`."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    n = rows * cols // block
    if kind == Q.F16:
        out = (rng.standard_normal((n, 1), np.float32) * std).astype("<f2").view(np.uint8)
    else:
        out = rng.integers(0, 256, (n, size), np.uint8)
        if kind == Q.Q4_0:  # f16 d, 32 nibbles
            out[:, 2:] = _NIBBLES[out[:, 2:]]
            out[:, :2] = _scales(rng, n, std / math.sqrt(56 / 3))
        elif kind == Q.Q8_0:  # f16 d, 32 int8
            out[:, :2] = _scales(rng, n, std / 74)
        elif kind == Q.Q6_K:  # 128 low nibbles, 64 high pairs, 16 int8 scales, f16 d
            out[:, 192:208] = rng.integers(16, 64, (n, 16), np.uint8)
            out[:, 208:] = _scales(rng, n, std / (18.5 * 42))
        else:
            raise ValueError(f"no writer for {kind.name}")
    return out.reshape(rows, -1)


def tensors(shape: Shape, body: Q, head: Q) -> Iterator[tuple[str, Q, int, int]]:
    """(name, type, rows, columns); rows == 0 marks a vector of ones."""
    s, kv = shape, shape.dim // shape.heads * shape.kv_heads
    yield "token_embd.weight", body, s.vocab, s.dim
    for i in range(s.layers):
        p = f"blk.{i}."
        yield p + "attn_norm.weight", Q.F32, 0, s.dim
        yield p + "attn_q.weight", body, s.dim, s.dim
        yield p + "attn_k.weight", body, kv, s.dim
        yield p + "attn_v.weight", body, kv, s.dim
        yield p + "attn_output.weight", body, s.dim, s.dim
        yield p + "ffn_norm.weight", Q.F32, 0, s.dim
        yield p + "ffn_gate.weight", body, s.ffn, s.dim
        yield p + "ffn_up.weight", body, s.ffn, s.dim
        yield p + "ffn_down.weight", body, s.dim, s.ffn
    yield "output_norm.weight", Q.F32, 0, s.dim
    yield "output.weight", head, s.vocab, s.dim


def write(path: Path, shape: Shape, kind: str, seed: int = 1) -> None:
    """Writes the file beside its place and renames it, so that a killed run leaves no half file."""
    rng = np.random.default_rng(seed)
    body, head = TYPES[kind]
    part = path.with_suffix(f".{os.getpid()}.part")
    w = gguf.GGUFWriter(str(part), "llama")
    w.add_name(f"random {shape.name} {kind}")
    w.add_file_type(FILE_TYPES[kind])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_context_length(shape.context)
    w.add_embedding_length(shape.dim)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.ffn)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(shape.dim // shape.heads)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(shape.vocab)
    tokens, scores, types = pieces(shape.vocab)
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_add_bos_token(True)
    plan = list(tensors(shape, body, head))
    for name, t, rows, cols in plan:
        block, size = gguf.GGML_QUANT_SIZES[t]
        if rows == 0:
            w.add_tensor_info(name, (cols,), np.dtype(np.float32), cols * 4)
        elif t == Q.F16:
            w.add_tensor_info(name, (rows, cols), np.dtype(np.float16), rows * cols * 2)
        else:
            row_bytes = cols // block * size
            w.add_tensor_info(name, (rows, row_bytes), np.dtype(np.uint8), rows * row_bytes, raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, t, rows, cols in plan:
        if rows == 0:
            w.write_tensor_data(np.ones(cols, np.float32))
            continue
        data = blocks(rng, t, rows, cols, 1 / math.sqrt(cols) if rows != shape.vocab else 0.05)
        if name == "output.weight":
            data[:N_SPECIAL] = 0
        w.write_tensor_data(data)
    w.close()
    part.rename(path)


def cache_dir() -> Path:
    """Where made models live: outside the tree, kept between runs."""
    base = os.environ.get("GGSERVE_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / ("bench" if "GGSERVE_CACHE" in os.environ else "ggserve/bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(shape: str, kind: str) -> Path:
    """The path of such a model, made now if it is not there yet."""
    path = cache_dir() / f"random-{shape}-{kind}-v{FORMAT}.gguf"
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        write(path, SHAPES[shape], kind)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1.1B")
    parser.add_argument("--type", choices=TYPES, default="q4_0")
    args = parser.parse_args()
    print(cached(args.shape, args.type))
