"""Hugging Face folders of Qwen 3 VL MoE, the text part."""

from typing import Any

import numpy as np

from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.qwen3moe import Qwen3MoEConverter
from engine.convert.huggingface.qwen3vl import Qwen3VLConverter

_EXPERTS = "model.layers.{i}.mlp.experts"


class Qwen3VLMoEConverter(Qwen3MoEConverter):
    architecture = "qwen3vlmoe"
    model_classes = ("Qwen3VLMoeForConditionalGeneration",)
    ignored = Qwen3VLConverter.ignored
    tensor_names = Qwen3MoEConverter.tensor_names | {
        f"{_EXPERTS}.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
        f"{_EXPERTS}.down_proj": "blk.{i}.ffn_down_exps.weight",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return super().convert_keys(config) | Qwen3VLConverter.convert_keys(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "_exps" not in name:
            return super().convert_tensor(name, x, config)
        x = x.swapaxes(1, 2)  # [expert, in, out]
        if "gate_up" not in name:
            return ((name, x),)
        gate, up = np.split(x, 2, axis=1)
        return ((name.replace("gate_up", "gate"), gate), (name.replace("gate_up", "up"), up))
