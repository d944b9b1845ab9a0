"""Hugging Face folders of Hunyuan, the dense models."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import STANDARD

CONTEXT = 256 * 1024  # that the scaling by alpha is meant for; config.json states less


class HunyuanDenseConverter(Converter):
    architecture = "hunyuan-dense"
    model_classes = ("HunYuanDenseV1ForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.self_attn.query_layernorm": "blk.{i}.attn_q_norm",
        "model.layers.{i}.self_attn.key_layernorm": "blk.{i}.attn_k_norm",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        rope = keys.rope_parameters(config)
        if rope.get("rope_type") != "dynamic":
            return keys.common(config)
        if not rope.get("alpha"):
            keys.refuse("rope_parameters.alpha", rope.get("alpha"), "a number")
        # A fixed alpha is another base of the rotary embedding (bloc97 2023, "NTK-aware scaled RoPE").
        dim = int(config["head_dim"])
        base = float(rope["rope_theta"]) * float(rope["alpha"]) ** (dim / (dim - 2))
        plain = config | {"rope_parameters": {"rope_type": "default", "rope_theta": base}}
        return keys.common(plain) | {
            "context_length": CONTEXT,
            "rope.scaling.type": "none",
            "rope.scaling.factor": 1.0,
            "rope.scaling.original_context_length": CONTEXT,
        }
