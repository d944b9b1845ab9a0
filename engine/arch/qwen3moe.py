"""Qwen 3 MoE: as Qwen 3, with experts whose weights are renormalised."""

from __future__ import annotations

from typing import Any, ClassVar

from engine.arch.decoder import Block
from engine.arch.experts import MixtureOfExperts
from engine.arch.huggingface import STANDARD, experts
from engine.arch.qwen3 import Qwen3
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Qwen3MoE(Qwen3):
    name = "qwen3moe"
    huggingface: ClassVar[tuple[str, ...]] = ("Qwen3MoeForCausalLM",)
    names: ClassVar[dict[str, str]] = STANDARD | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
    names |= {
        "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    }

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        if config.get("norm_topk_prob", True) is not True:
            keys.refuse("norm_topk_prob", config["norm_topk_prob"])
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            keys.refuse("mlp_only_layers or decoder_sparse_step", "set")
        return keys.common(config)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("expert_weights_norm", True)
        return keys.hparams(rope="neox")

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i)


ARCHITECTURE = Qwen3MoE
