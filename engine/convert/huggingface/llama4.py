"""Hugging Face folders of Llama 4 (the text part)."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.llama import LlamaConverter
from engine.convert.huggingface.names import STANDARD, shared_experts

CHUNK, WHOLE_EACH = 8192, 4  # which no key says


class Llama4Converter(LlamaConverter):
    architecture = "llama4"
    model_classes = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
    ignored = ("vision_model.", "multi_modal_projector.")
    tensor_names = (
        {name.replace(".mlp.", ".feed_forward."): target for name, target in STANDARD.items()}
        | shared_experts("feed_forward.shared_expert")
        | {
            "model.layers.{i}.feed_forward.router": "blk.{i}.ffn_gate_inp",
            "model.layers.{i}.feed_forward.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
            "model.layers.{i}.feed_forward.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        }
    )
    supported_settings = Converter.supported_settings | {
        "attention_chunk_size": (CHUNK,),
        "floor_scale": (CHUNK,),
        "attn_scale": (0.1,),
        "attn_temperature_tuning": (True, 4),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        n_layer, step = int(config["num_hidden_layers"]), int(config["interleave_moe_layer_step"])
        whole = [0 if (i + 1) % WHOLE_EACH == 0 else 1 for i in range(n_layer)]
        keys.only(config, "no_rope_layers", whole, [])
        keys.only(config, "moe_layers", list(range(step - 1, n_layer, step)))
        if set(config.get("layer_types") or ()) == {"full_attention"}:
            keys.refuse("layer_types", "full_attention", "chunked_attention in three of four layers")
        n_expert = int(config["num_local_experts"])
        keys.only(config, "use_qk_norm", n_expert != 128)
        width = int(config["intermediate_size"])
        return keys.common(config | {"intermediate_size": config["intermediate_size_mlp"]}) | {
            "interleave_moe_layer_step": step,
            "expert_feed_forward_length": width,
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "_exps" not in name:
            return ((name, x),)
        x = x.swapaxes(1, 2)  # [expert, in, out]
        if "gate_up" not in name:
            return ((name, x),)
        gate, up = np.split(x, 2, axis=1)
        return ((name.replace("gate_up", "gate"), gate), (name.replace("gate_up", "up"), up))
