"""Qwen 1.5 and 2 MoE: as Qwen 2, with experts whose weights are not renormalised, and a gated shared one."""

from __future__ import annotations

from typing import Any, ClassVar

from engine.architectures.qwen2 import Qwen2
from engine.convert.huggingface.names import experts
from engine.nn.binder import Binder
from engine.nn.decoder import Block
from engine.nn.hparams import HParams, Keys
from engine.nn.moe import MixtureOfExperts


class Qwen2MoE(Qwen2):
    name = "qwen2moe"
    renormalised: ClassVar[bool] = False
    huggingface = ("Qwen2MoeForCausalLM",)
    names = (
        Qwen2.names
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | {
            "model.layers.{i}.mlp.shared_expert.gate_proj": "blk.{i}.ffn_gate_shexp",
            "model.layers.{i}.mlp.shared_expert.up_proj": "blk.{i}.ffn_up_shexp",
            "model.layers.{i}.mlp.shared_expert.down_proj": "blk.{i}.ffn_down_shexp",
            "model.layers.{i}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
        }
    )

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        if config.get("norm_topk_prob", cls.renormalised) is not cls.renormalised:
            keys.refuse("norm_topk_prob", config["norm_topk_prob"])
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            keys.refuse("mlp_only_layers or decoder_sparse_step", "set")
        return super().convert_keys(config)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        Keys(gguf, cls.name).only("expert_weights_norm", cls.renormalised)
        return super().hparams(gguf)

    def feed_forward(self, binder: Binder, i: int) -> Block:
        return MixtureOfExperts(binder, self.hp, i, renormalise=False, shared=True)


ARCHITECTURE = Qwen2MoE
