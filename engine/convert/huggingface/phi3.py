"""Hugging Face folders of Phi 3 and 4."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.huggingface.names import STANDARD


class Phi3Converter(Converter):
    architecture = "phi3"
    model_classes: ClassVar[tuple[str, ...]] = ("Phi3ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
        "model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config)
        converted["rope.scaling.original_context_length"] = keys.n_ctx_original(config)
        converted |= keys.longrope(config)
        converted["attention.sliding_window"] = int(config.get("sliding_window") or 0)
        return converted

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        return keys.longrope_tensors(config)
