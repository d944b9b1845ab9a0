"""Qwen 2 MoE: as Qwen 2, with experts whose weights are not renormalised, and a gated shared one."""

from __future__ import annotations

from typing import Any, ClassVar

from engine.arch.blocks import Attention
from engine.arch.decoder import Decoder, Layer
from engine.arch.experts import MixtureOfExperts
from engine.arch.huggingface import STANDARD, experts
from engine.arch.slots import Binder
from engine.arch.spec import HParams, Keys


class Qwen2MoE(Decoder):
    name = "qwen2moe"
    huggingface: ClassVar[tuple[str, ...]] = ("Qwen2MoeForCausalLM",)
    names: ClassVar[dict[str, str]] = STANDARD | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
    names |= {
        "model.layers.{i}.mlp.shared_expert.gate_proj": "blk.{i}.ffn_gate_shexp",
        "model.layers.{i}.mlp.shared_expert.up_proj": "blk.{i}.ffn_up_shexp",
        "model.layers.{i}.mlp.shared_expert.down_proj": "blk.{i}.ffn_down_shexp",
        "model.layers.{i}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
    }

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        if config.get("norm_topk_prob", False) is not False:
            keys.refuse("norm_topk_prob", config["norm_topk_prob"])
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            keys.refuse("mlp_only_layers or decoder_sparse_step", "set")
        return keys.common(config)

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        keys.only("expert_weights_norm", False)
        return keys.hparams(rope="neox")

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i),
            ffn_norm=self.block_norm(binder, i, "ffn_norm"),
            ffn=MixtureOfExperts(binder, self.hp, i, renormalise=False, shared=True),
        )


ARCHITECTURE = Qwen2MoE
