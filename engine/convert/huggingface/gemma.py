"""Hugging Face folders of Gemma."""

from typing import ClassVar

from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import GELU_TANH, STANDARD


class GemmaConverter(Converter):
    architecture = "gemma"
    model_classes: ClassVar[tuple[str, ...]] = ("GemmaForCausalLM",)
    tensor_names = STANDARD
    tied_by_default = True
    # The first folders say `gelu` but were trained with the tanh approximation.
    supported_settings = {"hidden_act": ("gelu", *GELU_TANH), "hidden_activation": GELU_TANH}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        # transformers adds one to the weights of norms; GGUF has the sum.
        return ((name, x + 1 if name.endswith("norm.weight") else x),)
