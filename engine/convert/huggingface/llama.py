"""Hugging Face folders of LLaMA, Mistral and Mixtral."""

from typing import Any, ClassVar

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import STANDARD, experts, interleave


class LlamaConverter(Converter):
    architecture = "llama"
    model_classes: ClassVar[tuple[str, ...]] = (
        *("LlamaForCausalLM", "LLaMAForCausalLM"),
        *("MistralForCausalLM", "MixtralForCausalLM"),
    )
    tensor_names = STANDARD | experts("block_sparse_moe", "w1", "w3", "w2", "gate")

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        part = name.split(".")[-2]
        if part == "attn_q":
            x = interleave(x, config["num_attention_heads"])
        elif part == "attn_k":
            x = interleave(x, config.get("num_key_value_heads") or config["num_attention_heads"])
        return ((name, x),)

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config)
        if config.get("sliding_window"):
            converted["attention.sliding_window"] = int(config["sliding_window"])
        return converted

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        return keys.llama3_tensors(config)
