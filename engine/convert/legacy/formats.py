"""What pre-GGUF files (ggml, ggmf, ggjt) of each architecture contain, and what they leave out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.convert.huggingface import converter_of
from engine.convert.huggingface.names import below

FLOAT_FIELDS = ("attention.max_alibi_bias", "attention.clamp_kqv")
FLAG_FIELDS = ("use_parallel_residual",)
UNUSED_FIELDS = ("n_vocab", "n_mult")  # the tensors' shapes say it more reliably

_EPSILON = "attention.layer_norm_epsilon"


@dataclass(frozen=True, kw_only=True)
class LegacyFormat:
    """The layout of one architecture's files.

    fields: the hyperparameters in the file's order, as GGUF keys; int32, or float32 in FLOAT_FIELDS.
    defaults: keys that these files lack. names: tensor names; None: as in transformers.
    pre: pre-tokenizer of the byte-level BPE; None: SentencePiece. repeats_n_vocab: the number of tokens is
    written again before the vocabulary. qkv_by_head: the rows of QKV are (q, k, v) of each head.
    """

    fields: tuple[str, ...]
    defaults: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] | None = None
    pre: str | None = "gpt-2"
    repeats_n_vocab: bool = False
    qkv_by_head: bool = False

    def tensor_names(self, architecture: str) -> dict[str, str]:
        """Module name -> GGUF name, with {i} for the layer."""
        return converter_of(architecture).tensor_names if self.names is None else self.names


FORMATS: dict[str, LegacyFormat] = {
    "bloom": LegacyFormat(
        fields=("n_vocab", "embedding_length", "n_mult", "attention.head_count", "block_count"),
        defaults={"context_length": 2048, _EPSILON: 1e-5},
        names={
            "tok_embeddings": "token_embd",
            "norm": "token_embd_norm",
            "output_norm": "output_norm",
            "output": "output",
        }
        | below(
            "layers",
            {
                "attention_norm": "attn_norm",
                "attention.query_key_value": "attn_qkv",
                "attention.wo": "attn_output",
                "ffn_norm": "ffn_norm",
                "feed_forward.w1": "ffn_up",
                "feed_forward.w2": "ffn_down",
            },
        ),
        pre="bloom",
    ),
    "falcon": LegacyFormat(
        fields=(
            *("n_vocab", "embedding_length", "attention.head_count", "attention.head_count_kv"),
            "block_count",
        ),
        defaults={"context_length": 2048, _EPSILON: 1e-5, "tensor_data_layout": "jploski"},
        pre="falcon",
    ),
    "gpt2": LegacyFormat(
        fields=("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
        defaults={_EPSILON: 1e-5},
        repeats_n_vocab=True,
    ),
    "gptj": LegacyFormat(
        fields=(
            *("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
            "rope.dimension_count",
        ),
        defaults={_EPSILON: 1e-5},
        repeats_n_vocab=True,
    ),
    "gptneox": LegacyFormat(
        fields=(
            *("n_vocab", "context_length", "embedding_length", "attention.head_count", "block_count"),
            *("rope.dimension_count", "use_parallel_residual"),
        ),
        defaults={_EPSILON: 1e-5},
        qkv_by_head=True,
    ),
    "llama": LegacyFormat(
        fields=(
            *("n_vocab", "embedding_length", "n_mult", "attention.head_count", "block_count"),
            "rope.dimension_count",
        ),
        # Neither value is in these files. As in llama.cpp: between LLaMA's 1e-6 and LLaMA 2's 1e-5.
        defaults={"context_length": 2048, "attention.layer_norm_rms_epsilon": 5e-6},
        names={"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
        | below(
            "layers",
            {
                "attention_norm": "attn_norm",
                "attention.wq": "attn_q",
                "attention.wk": "attn_k",
                "attention.wv": "attn_v",
                "attention.wo": "attn_output",
                "ffn_norm": "ffn_norm",
                "feed_forward.w1": "ffn_gate",
                "feed_forward.w2": "ffn_down",
                "feed_forward.w3": "ffn_up",
            },
        ),
        pre=None,
    ),
    "mpt": LegacyFormat(
        fields=(
            *("embedding_length", "context_length", "attention.head_count", "block_count", "n_vocab"),
            *("attention.max_alibi_bias", "attention.clamp_kqv"),
        ),
        defaults={_EPSILON: 1e-5},
        pre="mpt",
    ),
}
