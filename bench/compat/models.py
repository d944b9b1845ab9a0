"""Tiny random-weight GGUF files with real vocabularies: what both servers are given.

Their answers mean nothing, but requests, counts, orders and shapes are as with any model. The vocabularies
are those that the pinned package carries for its own tests.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from bench.random_model import cache_dir
from ggml.fetch import LLAMA, pinned_package

FORMAT = 4  # part of the file names: raise it when what is written changes
DIM, LAYERS, HEADS, FFN = 64, 2, 4, 128
RANK_SEED = 57
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FILL_IN_MIDDLE = {"fim_pre": 31997, "fim_suf": 31998, "fim_mid": 31999}
# Models for the suite's own choices ("presets").
PRESET_MODELS = {
    "tinyllama2": "text",
    "tinyllama_infill": "infill",
    "bert_bge_small": "embedding",
    "bert_bge_small_with_fa": "embedding",
    "jina_reranker_tiny": "rank",
}


def _vocabulary(writer: gguf.GGUFWriter, name: str) -> int:
    """Copies every tokenizer key. Returns the number of tokens."""
    reader = gguf.GGUFReader(pinned_package() / LLAMA / "models" / f"ggml-vocab-{name}.gguf")
    n_vocab = 0
    for key, field in reader.fields.items():
        if key.startswith("tokenizer."):
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
            if key == "tokenizer.ggml.tokens":
                n_vocab = len(field.data)
    return n_vocab


class _Weights:
    """Adds random matrices whose rows keep the size of what goes through them."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self.writer, self.rng = writer, np.random.default_rng(seed)

    def matrix(self, name: str, rows: int, cols: int, silent: int = 0, scale: float = 1.0) -> None:
        """silent: first rows that are zero, so that no control or byte token is ever likely."""
        data = (self.rng.standard_normal((rows, cols)) * scale / np.sqrt(cols)).astype(np.float32)
        data[:silent] = 0
        self.writer.add_tensor(f"{name}.weight", data)

    def vector(self, name: str, size: int, value: float = 0.0) -> None:
        self.writer.add_tensor(name, np.full(size, value, np.float32))

    def affine(self, name: str, rows: int, cols: int) -> None:
        self.matrix(name, rows, cols)
        self.vector(f"{name}.bias", rows)

    def norm(self, name: str) -> None:
        self.vector(f"{name}.weight", DIM, 1.0)
        self.vector(f"{name}.bias", DIM)


def _common(writer: gguf.GGUFWriter, name: str, context: int) -> None:
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)


def _llama(writer: gguf.GGUFWriter, name: str) -> None:
    _common(writer, name, 8192)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(DIM // HEADS)
    n_vocab = _vocabulary(writer, "llama-spm")
    writer.add_vocab_size(n_vocab)
    writer.add_chat_template(CHATML)
    if name == "infill":
        for key, token in FILL_IN_MIDDLE.items():
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", token)
    w = _Weights(writer, 1)
    w.matrix("token_embd", n_vocab, DIM, scale=8.0)
    for i in range(LAYERS):
        layer = f"blk.{i}."
        w.vector(f"{layer}attn_norm.weight", DIM, 1.0)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w.matrix(layer + part, DIM, DIM)
        w.vector(f"{layer}ffn_norm.weight", DIM, 1.0)
        w.matrix(f"{layer}ffn_gate", FFN, DIM)
        w.matrix(f"{layer}ffn_up", FFN, DIM)
        w.matrix(f"{layer}ffn_down", DIM, FFN)
    w.vector("output_norm.weight", DIM, 1.0)
    w.matrix("output", n_vocab, DIM, silent=3 + 256)


def _bert(writer: gguf.GGUFWriter, name: str) -> None:
    context = 512
    _common(writer, name, context)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if name == "rank" else gguf.PoolingType.CLS)
    n_vocab = _vocabulary(writer, "bert-bge")
    writer.add_vocab_size(n_vocab)
    if name == "rank":  # as today's converter writes them: [CLS] query [SEP] document [SEP]
        writer.add_eos_token_id(102)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)
        writer.add_add_sep_token(False)
    # A seed for which the suite's third document is the best and its fourth the worst, as it expects.
    w = _Weights(writer, RANK_SEED if name == "rank" else 2)
    w.matrix("token_embd", n_vocab, DIM)
    w.matrix("position_embd", context, DIM)
    w.matrix("token_types", 2, DIM, silent=2)  # llama-server gives the first one to both sentences
    w.norm("token_embd_norm")
    for i in range(LAYERS):
        layer = f"blk.{i}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w.affine(layer + part, DIM, DIM)
        w.norm(f"{layer}attn_output_norm")
        w.affine(f"{layer}ffn_up", FFN, DIM)
        w.affine(f"{layer}ffn_down", DIM, FFN)
        w.norm(f"{layer}layer_output_norm")
    if name == "rank":
        w.affine("cls", DIM, DIM)
        w.affine("cls.output", 1, DIM)


_KINDS: dict[str, tuple[str, Any]] = {
    "text": ("llama", _llama),
    "infill": ("llama", _llama),
    "embedding": ("bert", _bert),
    "rank": ("bert", _bert),
}


def made(name: str) -> Path:
    """The file of that name, written now if it is not there yet."""
    path = cache_dir() / f"compat-{name}-v{FORMAT}.gguf"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")
        architecture, fill = _KINDS[name]
        writer = gguf.GGUFWriter(str(part), architecture)
        fill(writer, name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.rename(path)
    return path
