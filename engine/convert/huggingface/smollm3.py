"""Hugging Face folders of SmolLM3."""

from typing import Any

from engine.architectures.smollm3 import UNROTATED_EACH
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD


class SmolLM3Converter(LlamaConverter):
    architecture = "smollm3"
    model_classes = ("SmolLM3ForCausalLM",)
    tensor_names = STANDARD
    tied_by_default = True
    supported_settings = LlamaConverter.supported_settings | {"use_sliding_window": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        rotated = [i % UNROTATED_EACH != 0 for i in range(1, config["num_hidden_layers"] + 1)]
        if [bool(flag) for flag in config.get("no_rope_layers") or rotated] != rotated:
            keys.refuse("no_rope_layers", config["no_rope_layers"], f"0 for each {UNROTATED_EACH}th layer")
        keys.only(config, "no_rope_layer_interval", UNROTATED_EACH)
        return super().convert_keys(config | {"sliding_window": None})
