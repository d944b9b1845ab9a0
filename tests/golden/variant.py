"""What a golden file is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from converter import Fix
from layouts import VOCAB

__all__ = ["BASE", "VOCAB", "Variant", "make"]

# Settings of config.json; a module of `variants` changes what its families need otherwise.
BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}


@dataclass(frozen=True)
class Variant:
    """One golden file. `what` is what it would catch.

    layout: "convert" (llama.cpp's converter, then `fix`), or a function of `layouts`.
    gains: of the random weights over 1/sqrt(fan-in), by the end of the parameter's name, before `GAINS`.
    published: changes of config.json to what published models have there, and the converter reads.
    checkpoint: makes of the saved tensors those of published models whose class transformers lacks.
    extend: gives the model what published models of its kind have and the class in transformers has not.
    bf16: the weights are numbers that bfloat16 has. hf: also kept as a Hugging Face folder (needs bf16).
    """

    what: str
    model: str  # class in transformers
    config: dict[str, Any]
    layout: str = "convert"
    embedding_std: float = 0.25
    gains: dict[str, float] = field(default_factory=dict)
    fix: Fix | None = None
    published: dict[str, Any] = field(default_factory=dict)
    checkpoint: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    extend: Callable[[Any], None] | None = None
    bf16: bool = True
    hf: bool = False


def make(what: str, model: str, **settings: Any) -> Variant:
    """settings: the fields of `Variant` by their names; all others are of config.json, over `BASE`."""
    own = {f.name: settings.pop(f.name) for f in fields(Variant) if f.name in settings}
    return Variant(what, model, BASE | settings, **own)
