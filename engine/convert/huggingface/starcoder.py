"""Hugging Face folders of StarCoder and SantaCoder (GPT-BigCode)."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.gpt2 import GPT2Converter


class StarCoderConverter(GPT2Converter):
    architecture = "starcoder"
    model_classes = ("GPTBigCodeForCausalLM",)
    supported_settings = GPT2Converter.supported_settings | {"multi_query": (True,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return keys.common(config) | {"attention.head_count_kv": 1}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return ((name, x),)
