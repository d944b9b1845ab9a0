"""Hugging Face folders of Granite 3 MoE."""

from typing import Any

import numpy as np

from engine.convert.huggingface.base import Array, Config, Converted
from engine.convert.huggingface.granite import GraniteConverter

_MOE, _SHARED = "model.layers.{i}.block_sparse_moe", "model.layers.{i}.shared_mlp"


class GraniteMoEConverter(GraniteConverter):
    architecture = "granitemoe"
    model_classes = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
    tensor_names = GraniteConverter.tensor_names | {
        f"{_MOE}.router.layer": "blk.{i}.ffn_gate_inp",
        f"{_MOE}.input_linear": "blk.{i}.ffn_gate_up_exps",
        f"{_MOE}.output_linear": "blk.{i}.ffn_down_exps",
        f"{_SHARED}.input_linear": "blk.{i}.ffn_gate_up_shexp",
        f"{_SHARED}.output_linear": "blk.{i}.ffn_down_shexp",
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        shared = int(config.get("shared_intermediate_size") or 0)
        return super().convert_keys(config) | (
            {"expert_shared_feed_forward_length": shared} if shared else {}
        )

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "gate_up" not in name:
            return super().convert_tensor(name, x, config)
        gate, up = np.split(x, 2, axis=-2)
        return ((name.replace("gate_up", "gate"), gate), (name.replace("gate_up", "up"), up))
