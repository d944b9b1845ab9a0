"""How files from before GGUF (GGML, GGMF, GGJT) hold a model of an architecture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Legacy:
    """fields: the hyperparameters in the file's order, as the keys of GGUF; int32 unless in FLOATS.

    defaults: keys that these files do not have. names: tensors' names where they are not those of
    transformers. pre: the pre-tokenizer of its byte-level BPE; None: SentencePiece. counts_again: the number
    of tokens stands once more before the vocabulary. qkv_by_head: rows of QKV are those of transformers.
    """

    fields: tuple[str, ...]
    defaults: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] | None = None
    pre: str | None = "gpt-2"
    counts_again: bool = False
    qkv_by_head: bool = False


FLOATS = ("attention.max_alibi_bias", "attention.clamp_kqv")
FLAGS = ("use_parallel_residual",)
UNUSED = ("n_vocab", "n_mult")  # of what the fields say, the tensors tell it better
EPSILON = "attention.layer_norm_epsilon"
