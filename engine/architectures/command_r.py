"""Command-R: LayerNorms without bias, both blocks on one norm, adjacent pairs rotated, SwiGLU, scaled logits.

Command-R+ also norms Q and K per head, with weights of its own for each.
"""

from __future__ import annotations

from typing import Any

from engine.convert.huggingface.names import STANDARD
from engine.nn.binder import Binder
from engine.nn.decoder import Decoder, Layer
from engine.nn.hparams import HParams, Keys
from engine.nn.layers import Attention, FeedForward


class CommandR(Decoder):
    name = "command-r"
    norms = "layer"
    huggingface = ("CohereForCausalLM",)
    tied_by_default = True
    names = STANDARD | {
        "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    }

    @classmethod
    def convert_keys(cls, config: dict[str, Any]) -> dict[str, Any]:
        from engine.convert import keys

        found = keys.common(config) | {"logit_scale": float(config["logit_scale"])}
        # config.json tells of a part of the context that the model was trained for.
        found["context_length"] = int(config.get("model_max_length") or found["context_length"])
        return found | {"rope.scaling.type": "none"}

    @classmethod
    def hparams(cls, gguf: Any) -> HParams:
        keys = Keys(gguf, cls.name)
        return keys.hparams(rope="norm", eps="layer", logit_scale=keys.number("logit_scale", 1.0))

    def layer(self, binder: Binder, i: int) -> Layer:
        qk_norm = binder.has(f"blk.{i}.attn_q_norm.weight")
        return Layer(
            parallel=True,
            attn_norm=self.block_norm(binder, i, "attn_norm"),
            attention=Attention(
                binder, self.hp, i, qk_norm="head" if qk_norm else None, norm=self.norm, own_weights=True
            ),
            ffn=FeedForward(binder, self.hp, i),
        )


ARCHITECTURE = CommandR
