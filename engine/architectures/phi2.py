"""Phi 1, 1.5 and 2: as GPT-J, but halves are rotated, and there are biases everywhere (arXiv 2309.05463)."""

from __future__ import annotations

from typing import Any

from engine.architectures.gptj import GPTJ
from engine.convert.huggingface.names import GELU_TANH, STANDARD
from engine.nn.hparams import HParams, Keys


class Phi2(GPTJ):
    name = "phi2"
    huggingface = ("PhiForCausalLM",)
    names = STANDARD | {
        "model.final_layernorm": "output_norm",
        "model.layers.{i}.self_attn.dense": "blk.{i}.attn_output",
        "model.layers.{i}.mlp.fc1": "blk.{i}.ffn_up",
        "model.layers.{i}.mlp.fc2": "blk.{i}.ffn_down",
    }

    settings = {"hidden_act": GELU_TANH, "qk_layernorm": (False,)}  # noqa: RUF012

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        return keys.common({"partial_rotary_factor": 0.5} | config)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        return Keys(gguf, cls.name).hparams(rope="neox", eps="layer")


ARCHITECTURE = Phi2
