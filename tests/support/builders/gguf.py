"""Writes GGUF files for tests, at the level of bytes, so that it can write wrong ones as well.

Independent of `engine.gguf`: it shares no table with the reader that it tests.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "B",
    U64: "Q",
    I64: "q",
    F64: "d",
}
# tensor types used in tests: number, elements of a block, bytes of a block
TENSOR_TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
}


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: Any) -> bytes:
    return string(value) if kind == STRING else struct.pack("<" + FORMATS[kind], value)


def guess(value: Any) -> int:
    """The type that converters use for such a value."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return U32 if value >= 0 else I32
    return F32 if isinstance(value, float) else STRING


class GGUFBuilder:
    """Collects keys and tensors; `build()` returns the file. Any count, type or offset can be overridden."""

    def __init__(self, *, version: int = 3, alignment: int | None = None) -> None:
        self.version = version
        self.alignment = alignment or 32
        self.keys: dict[str, bytes] = {}
        self.extra_keys: list[bytes] = []
        self.infos: list[bytes] = []
        self.blob = b""
        if alignment is not None:
            self.key("general.alignment", alignment)

    def key(self, name: str, value: Any, kind: int | None = None) -> GGUFBuilder:
        """Adds or replaces a key. A list becomes an array of `kind`."""
        if isinstance(value, list):
            kind = guess(value[0]) if kind is None else kind
            body = struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(scalar(kind, v) for v in value)
        else:
            kind = guess(value) if kind is None else kind
            body = struct.pack("<I", kind) + scalar(kind, value)
        return self.raw(name, body)

    def raw(self, name: str, body: bytes) -> GGUFBuilder:
        """Adds or replaces a key whose type and value are given as bytes."""
        self.keys[name] = body
        return self

    def drop(self, name: str) -> GGUFBuilder:
        del self.keys[name]
        return self

    def tensor(
        self,
        name: str | bytes,
        shape: tuple[int, ...],
        kind: str = "F32",
        *,
        data: bytes | None = None,
        offset: int | None = None,
        type_number: int | None = None,
        n_dims: int | None = None,
    ) -> GGUFBuilder:
        """Adds a tensor after the last one; `shape` in ggml's order. Without `data` it is all zeros."""
        number, block, size = TENSOR_TYPES[kind]
        if data is None:
            n = 1
            for d in shape:
                n *= d
            data = bytes(n // block * size) if n < 1 << 24 else b""
        self.blob += bytes(-len(self.blob) % self.alignment)
        self.infos.append(
            string(name)
            + struct.pack("<I", len(shape) if n_dims is None else n_dims)
            + b"".join(struct.pack("<Q", d) for d in shape)
            + struct.pack("<I", number if type_number is None else type_number)
            + struct.pack("<Q", len(self.blob) if offset is None else offset)
        )
        self.blob += data
        return self

    def header(self, *, n_keys: int | None = None, n_tensors: int | None = None) -> bytes:
        pairs = [string(name) + body for name, body in self.keys.items()] + self.extra_keys
        return (
            b"GGUF"
            + struct.pack("<I", self.version)
            + struct.pack("<Q", len(self.infos) if n_tensors is None else n_tensors)
            + struct.pack("<Q", len(pairs) if n_keys is None else n_keys)
            + b"".join(pairs)
            + b"".join(self.infos)
        )

    def build(self, *, n_keys: int | None = None, n_tensors: int | None = None) -> bytes:
        head = self.header(n_keys=n_keys, n_tensors=n_tensors)
        return head + bytes(-len(head) % self.alignment) + self.blob if self.infos else head

    def write(self, path: Path, **counts: int) -> Path:
        path.write_bytes(self.build(**counts))
        return path


def tiny_llama(*, n_layers: int = 2, n_vocab: int = 32, width: int = 32) -> GGUFBuilder:
    """A whole llama model with weights of zero: 4 heads over 2 key-value heads."""
    b = GGUFBuilder()
    b.key("general.architecture", "llama").key("general.name", "tiny").key("general.file_type", 0)
    for name, value in {
        "block_count": n_layers,
        "context_length": 64,
        "embedding_length": width,
        "feed_forward_length": 2 * width,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": width // 4,
        "rope.freq_base": 10000.0,
        "vocab_size": n_vocab,
    }.items():
        b.key(f"llama.{name}", value)
    b.key("tokenizer.ggml.model", "llama")
    tokens = ["<unk>", "<s>", "</s>"] + [f"▁t{i}" for i in range(n_vocab - 3)]
    b.key("tokenizer.ggml.tokens", tokens)
    b.key("tokenizer.ggml.scores", [-float(i) for i in range(n_vocab)])
    b.key("tokenizer.ggml.token_type", [2, 3, 3] + [1] * (n_vocab - 3), I32)
    b.key("tokenizer.ggml.bos_token_id", 1).key("tokenizer.ggml.eos_token_id", 2)
    b.key("tokenizer.ggml.add_bos_token", True)
    b.tensor("token_embd.weight", (width, n_vocab)).tensor("output_norm.weight", (width,))
    for i in range(n_layers):
        for name, shape in {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (width, width // 2),
            "attn_v": (width, width // 2),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (width, 2 * width),
            "ffn_up": (width, 2 * width),
            "ffn_down": (2 * width, width),
        }.items():
            b.tensor(f"blk.{i}.{name}.weight", shape)
    return b
