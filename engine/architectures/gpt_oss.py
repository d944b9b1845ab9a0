"""GPT-OSS: attention sinks, a window in every other layer, experts with biases and a clamped SwiGLU.

The router's softmax is over the chosen experts only (arXiv 2508.10925).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.convert.huggingface.names import STANDARD
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention
from engine.nn.moe import MixtureOfExperts


class GPTOSS(Decoder):
    name = "gpt-oss"
    huggingface = ("GptOssForCausalLM",)
    names = STANDARD | {
        "model.layers.{i}.self_attn.sinks": "blk.{i}.attn_sinks",
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
        "model.layers.{i}.mlp.router": "blk.{i}.ffn_gate_inp",
        "model.layers.{i}.mlp.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
        "model.layers.{i}.mlp.experts.gate_up_proj_bias": "blk.{i}.ffn_gate_up_exps.bias",
        "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.mlp.experts.down_proj_bias": "blk.{i}.ffn_down_exps.bias",
    }

    settings = Decoder.settings | {"swiglu_limit": (7.0,)}

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        keys.windows_but_each(config, 2)
        found = keys.common(config) | {"attention.sliding_window": int(config["sliding_window"])}
        return found | {"expert_feed_forward_length": int(config["intermediate_size"])}

    @classmethod
    def convert_tensor(cls, name: str, x: Any, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
        if "_exps.weight" in name and x.dtype != "uint8":  # blocks of the release are in rows already
            x = x.swapaxes(1, 2)  # [expert, in, out]
        if "gate_up" not in name:
            return ((name, x),)
        # The rows of gate and up alternate.
        return ((name.replace("gate_up", "gate"), x[:, ::2]), (name.replace("gate_up", "up"), x[:, 1::2]))

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        n_layer = keys.integer("block_count")
        rope = keys.rope("neox", keys.integer("rope.dimension_count", keys.integer("attention.key_length")))
        if rope.ext_factor:
            rope = rope.unrounded_yarn()
        return keys.hparams(rope=rope, windows=keys.windows(n_layer, pattern=2))

    def layer(self, binder: Binder, i: int) -> Layer:
        return Layer(
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(binder, self.hp, i, sinks=True),
            ffn_norm=self.block_norm(binder, i, "post_attention_norm"),
            ffn=MixtureOfExperts(binder, self.hp, i, activation="swiglu_oai", weights="chosen"),
        )


ARCHITECTURE = GPTOSS
