"""Hugging Face folders of Nemotron 3 and 4, and Minitron."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import STANDARD


class NemotronConverter(Converter):
    architecture = "nemotron"
    model_classes = ("NemotronForCausalLM",)
    tensor_names = STANDARD
    supported_settings = {"hidden_act": ("relu2",)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        share = config.get("partial_rotary_factor", config.get("rope_percent", 0.5))
        converted = keys.common({"partial_rotary_factor": share, "rope_theta": 10000.0} | config)
        return {"rope.scaling.type": "none"} | converted

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return ((name, x + 1 if name.endswith("norm.weight") else x),)
