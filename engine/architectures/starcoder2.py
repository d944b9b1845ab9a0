"""StarCoder 2: LayerNorms, biases, halves rotated, GELU (tanh form), a window (arXiv 2402.19173)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.architectures.gpt2 import GPT2
from engine.convert.huggingface.names import GELU_TANH, STANDARD
from engine.nn.hparams import HParams, Keys

WINDOW = 4096  # of all published models; llama.cpp's converter leaves the key out


class StarCoder2(GPT2):
    name = "starcoder2"
    huggingface = ("Starcoder2ForCausalLM",)
    names = STANDARD | {
        "model.layers.{i}.mlp.c_fc": "blk.{i}.ffn_up",
        "model.layers.{i}.mlp.c_proj": "blk.{i}.ffn_down",
    }
    tied_by_default = True
    settings = {"hidden_act": GELU_TANH, "norm_type": ("layer_norm",), "mlp_type": ("default",)}  # noqa: RUF012

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        return keys.common(config) | {"attention.sliding_window": int(config.get("sliding_window") or 0)}

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        return ((name, x),)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        windows = keys.windows(keys.integer("block_count"), default=WINDOW)
        return keys.hparams(rope="neox", eps="layer", windows=windows)


ARCHITECTURE = StarCoder2
