"""Hugging Face folders of Command-R and Command-R+ (Cohere)."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import QK_NORMS, STANDARD


class CommandRConverter(Converter):
    architecture = "command-r"
    model_classes = ("CohereForCausalLM",)
    tied_by_default = True
    tensor_names = STANDARD | QK_NORMS

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config) | {"logit_scale": float(config["logit_scale"])}
        # max_position_embeddings is only a part of the context that the model was trained for.
        converted["context_length"] = int(config.get("model_max_length") or converted["context_length"])
        return converted | {"rope.scaling.type": "none"}
