"""Writes pre-GGUF files, by what the Rust `llm` crates and ggml's examples read.

Nothing here is shared with the reader: names, orders and alignments are spelled out.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.builders.golden import TinyModel

MAGIC = {"ggml": 0x67676D6C, "ggmf": 0x67676D66, "ggjt": 0x67676A74}


@dataclass
class Old:
    """One file. header: (struct format, value)s; tensors: (name, type number, ggml shape, bytes)."""

    container: str
    version: int
    header: list[tuple[str, float]]
    tokens: list[tuple[bytes, float]]
    tensors: list[tuple[str, int, tuple[int, ...], bytes]]

    def bytes(self) -> bytes:
        out = struct.pack("<I", MAGIC[self.container])
        if self.container != "ggml":
            out += struct.pack("<I", self.version)
        for kind, value in self.header:
            out += struct.pack("<" + kind, value)
        for text, score in self.tokens:
            out += struct.pack("<I", len(text)) + text
            if self.container != "ggml":
                out += struct.pack("<f", score)
        for name, number, shape, data in self.tensors:
            out += struct.pack("<3i", len(shape), len(name.encode()), number)
            out += struct.pack(f"<{len(shape)}i", *shape) + name.encode()
            if self.container == "ggjt":
                out += bytes(-len(out) % 32)
            out += data
        return out

    def write(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path


LLAMA = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "output": "output",
    "attn_norm": "layers.{}.attention_norm",
    "attn_q": "layers.{}.attention.wq",
    "attn_k": "layers.{}.attention.wk",
    "attn_v": "layers.{}.attention.wv",
    "attn_output": "layers.{}.attention.wo",
    "ffn_norm": "layers.{}.ffn_norm",
    "ffn_gate": "layers.{}.feed_forward.w1",
    "ffn_down": "layers.{}.feed_forward.w2",
    "ffn_up": "layers.{}.feed_forward.w3",
}
BLOOM = {
    "token_embd": "tok_embeddings",
    "token_embd_norm": "norm",
    "output_norm": "output_norm",
    "output": "output",
    "attn_norm": "layers.{}.attention_norm",
    "attn_qkv": "layers.{}.attention.query_key_value",
    "attn_output": "layers.{}.attention.wo",
    "ffn_norm": "layers.{}.ffn_norm",
    "ffn_up": "layers.{}.feed_forward.w1",
    "ffn_down": "layers.{}.feed_forward.w2",
}
GPT2 = {
    "token_embd": "model/wte",
    "position_embd": "model/wpe",
    "output_norm": "model/ln_f",
    "output": "model/lm_head",
    "attn_norm": "model/h{}/ln_1",
    "attn_qkv": "model/h{}/attn/c_attn",
    "attn_output": "model/h{}/attn/c_proj",
    "ffn_norm": "model/h{}/ln_2",
    "ffn_up": "model/h{}/mlp/c_fc",
    "ffn_down": "model/h{}/mlp/c_proj",
}
GPTJ = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "transformer.h.{}.ln_1",
    "attn_q": "transformer.h.{}.attn.q_proj",
    "attn_k": "transformer.h.{}.attn.k_proj",
    "attn_v": "transformer.h.{}.attn.v_proj",
    "attn_output": "transformer.h.{}.attn.out_proj",
    "ffn_up": "transformer.h.{}.mlp.fc_in",
    "ffn_down": "transformer.h.{}.mlp.fc_out",
}
NEOX = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
    "attn_norm": "gpt_neox.layers.{}.input_layernorm",
    "attn_qkv": "gpt_neox.layers.{}.attention.query_key_value",
    "attn_output": "gpt_neox.layers.{}.attention.dense",
    "ffn_norm": "gpt_neox.layers.{}.post_attention_layernorm",
    "ffn_up": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
    "ffn_down": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}
MPT = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "attn_norm": "transformer.blocks.{}.norm_1",
    "attn_qkv": "transformer.blocks.{}.attn.Wqkv",
    "attn_output": "transformer.blocks.{}.attn.out_proj",
    "ffn_norm": "transformer.blocks.{}.norm_2",
    "ffn_up": "transformer.blocks.{}.ffn.up_proj",
    "ffn_down": "transformer.blocks.{}.ffn.down_proj",
}
FALCON = {
    "token_embd": "transformer.word_embeddings",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "attn_norm": "transformer.h.{}.input_layernorm",
    "attn_qkv": "transformer.h.{}.self_attention.query_key_value",
    "attn_output": "transformer.h.{}.self_attention.dense",
    "ffn_up": "transformer.h.{}.mlp.dense_h_to_4h",
    "ffn_down": "transformer.h.{}.mlp.dense_4h_to_h",
}
FALCON_40B = FALCON | {"attn_norm": "transformer.h.{}.ln_mlp", "attn_norm_2": "transformer.h.{}.ln_attn"}
NAMES = {
    "llama": LLAMA,
    "bloom": BLOOM,
    "gpt2": GPT2,
    "gptj": GPTJ,
    "gptneox": NEOX,
    "mpt": MPT,
    "falcon": FALCON,
}


def interleaved(x: np.ndarray, n_head: int) -> np.ndarray:
    """All Q, all K, all V as (q, k, v) of each head: how GPT-NeoX's own files have it."""
    q, k, v = np.split(x, 3)
    parts = [p.reshape(n_head, -1, *x.shape[1:]) for p in (q, k, v)]
    return np.concatenate(parts, axis=1).reshape(x.shape)


def header(arch: str, get: dict[str, float], n_vocab: int, file_type: int) -> list[tuple[str, float]]:
    """Hyperparameters of `arch` in the order of its files. get: the keys of GGUF."""

    def i(*names: str) -> list[tuple[str, float]]:
        return [("i", int(get[name])) for name in names]

    embd, ctx, head, layer = "embedding_length", "context_length", "attention.head_count", "block_count"
    vocab, end = ("i", n_vocab), ("i", file_type)
    rot = "rope.dimension_count"
    if arch == "llama":
        return [vocab, *i(embd), ("i", 256), *i(head, layer, rot), end]
    if arch == "bloom":
        return [vocab, *i(embd), ("i", 1), *i(head, layer), end]
    if arch == "mpt":
        bias, clip = get.get("attention.max_alibi_bias", 0.0), get.get("attention.clamp_kqv", 0.0)
        return [*i(embd, ctx, head, layer), vocab, ("f", bias), ("f", clip), end]
    if arch == "falcon":
        return [vocab, *i(embd, head, "attention.head_count_kv", layer), end]
    if arch == "gptneox":
        return [vocab, *i(ctx, embd, head, layer, rot, "use_parallel_residual"), end]
    if arch == "gptj":
        return [vocab, *i(ctx, embd, head, layer, rot), end, vocab]
    assert arch == "gpt2"
    return [vocab, *i(ctx, embd, head, layer), end, vocab]


def of_golden(
    model: TinyModel,
    tokens: list[tuple[bytes, float]],
    *,
    container: str = "ggjt",
    version: int = 3,
    file_type: int = 0,
    encode: dict[str, tuple[int, bytes]] | None = None,
    names: dict[str, str] | None = None,
) -> Old:
    """The old file of a golden model. encode: type number and data of some tensors, by name in GGUF."""
    arch = model.keys["general.architecture"][0]
    get = {k.removeprefix(f"{arch}."): v[0] for k, v in model.keys.items() if k.startswith(f"{arch}.")}
    spelled = names or NAMES[arch]
    tensors = []
    for name, x in model.tensors.items():
        layer = re.match(r"blk\.(\d+)\.", name)
        stem, end = re.sub(r"^blk\.\d+\.", "", name).rsplit(".", 1)
        old = spelled[stem].format(layer[1] if layer else "")
        if arch == "gpt2":
            short = "b" if end == "bias" else "g" if "norm" in stem else "w"
            ending = "" if old.rsplit("/", 1)[1] in ("wte", "wpe", "lm_head") else f"/{short}"
        else:
            ending = f".{end}"
        if arch == "gptneox" and stem == "attn_qkv":
            x = interleaved(x, int(get["attention.head_count"]))
        number, data = (encode or {}).get(name) or (0, np.ascontiguousarray(x).tobytes())
        tensors.append((old + ending, number, tuple(reversed(x.shape)), data))
    return Old(container, version, header(arch, get, len(tokens), file_type), tokens, tensors)
