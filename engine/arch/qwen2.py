"""Qwen 2 and 2.5: as LLaMA, but halves are rotated, and Q, K, V have biases (arXiv 2407.10671)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.arch.huggingface import STANDARD
from engine.arch.llama import Llama
from engine.arch.spec import HParams, Keys


class Qwen2(Llama):
    name = "qwen2"
    huggingface = ("Qwen2ForCausalLM",)
    names = STANDARD

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        if config.get("use_sliding_window"):
            keys.refuse("use_sliding_window", True)
        return keys.common(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        return ((name, x),)

    @classmethod
    def extra_tensors(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {}

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="neox")


ARCHITECTURE = Qwen2
