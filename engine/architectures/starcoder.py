"""StarCoder and SantaCoder (GPT-BigCode): as GPT-2, with one KV head (arXiv 2305.06161)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.architectures.gpt2 import GPT2
from engine.nn.hparams import HParams, Keys


class StarCoder(GPT2):
    name = "starcoder"
    huggingface = ("GPTBigCodeForCausalLM",)
    settings = GPT2.settings | {"multi_query": (True,)}

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        return keys.common(config) | {"attention.head_count_kv": 1}

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        return ((name, x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope=None, eps="layer", max_positions=keys.integer("context_length"))


ARCHITECTURE = StarCoder
