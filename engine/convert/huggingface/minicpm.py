"""Hugging Face folders of MiniCPM 1, 2 and 4."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD


class MiniCPMConverter(LlamaConverter):
    architecture = "minicpm"
    model_classes = ("MiniCPMForCausalLM",)
    tensor_names = STANDARD
    tied_by_default = True
    config_defaults = {"rope_theta": 10000.0}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        longrope = keys.longrope(config)
        kind = {"rope.scaling.type": "longrope"} if longrope else {}
        return (
            super().convert_keys(config)
            | longrope
            | kind
            | {
                "embedding_scale": float(config["scale_emb"]),
                "residual_scale": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
                "logit_scale": config["hidden_size"] / config["dim_model_base"],
            }
        )

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        return keys.longrope_tensors(config)
