"""Hugging Face folders of Gemma 2."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.gemma import GemmaConverter
from engine.convert.huggingface.names import GELU_TANH, STANDARD


class Gemma2Converter(GemmaConverter):
    architecture = "gemma2"
    model_classes: ClassVar[tuple[str, ...]] = ("Gemma2ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
        "model.layers.{i}.pre_feedforward_layernorm": "blk.{i}.ffn_norm",
        "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
    }
    full_attention_each: ClassVar[int] = 2  # every n-th layer has no window
    supported_settings = {"hidden_activation": GELU_TANH, "use_bidirectional_attention": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        keys.windows_but_each(config, cls.full_attention_each)
        converted = keys.common(config)
        converted["attention.sliding_window"] = int(config["sliding_window"])
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if config.get(key):
                converted[key] = float(config[key])
        if config.get("query_pre_attn_scalar", config["head_dim"]) != config["head_dim"]:
            converted["attention.scale"] = float(config["query_pre_attn_scalar"]) ** -0.5
        return converted
