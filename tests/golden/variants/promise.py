"""MPT, Falcon, GPT-NeoX, GPT-J, GPT-2, BLOOM."""

from __future__ import annotations

from typing import Any

from variant import VOCAB, Variant

IDS: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


def gpt2(what: str, *, hf: bool = False, **config: Any) -> Variant:
    base = {"n_embd": 40, "n_layer": 2, "n_head": 2, "n_positions": 256, "n_ctx": 256}
    return Variant(what, "GPT2LMHeadModel", IDS | base | config, hf=hf)


VARIANTS = {
    "gpt2": gpt2("learned positions, biases, tied head", hf=True),
}
