"""Hugging Face folders of DeepSeek V2, V3 and R1, Kimi K2, and GLM-4.7-Flash."""

from typing import Any, ClassVar

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.glm4moe import BIAS
from engine.convert.huggingface.names import STANDARD, experts, shared_experts

ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "q_a_layernorm", "kv_a_layernorm")


class DeepSeek2Converter(Converter):
    architecture = "deepseek2"
    model_classes: ClassVar[tuple[str, ...]] = (
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "Glm4MoeLiteForCausalLM",
    )
    predicts_more = True
    tensor_names = (
        STANDARD
        | experts("mlp", "gate_proj", "up_proj", "down_proj", "gate")
        | shared_experts("mlp.shared_experts")
        | {BIAS: "blk.{i}.exp_probs_b.bias"}
        | {
            f"model.layers.{{i}}.self_attn.{name}": "blk.{i}.attn_"
            + name.replace("_proj", "").replace("_with", "").replace("layernorm", "norm")
            for name in ATTENTION
        }
    )
    supported_settings = Converter.supported_settings | {
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "rope_interleave": (True,),
        "moe_layer_freq": (1,),
        "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        rank, n_rot = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
        rope = keys.rope_parameters(config)
        if rope.get("mscale", 1.0) != (scale := rope.get("mscale_all_dim")) and scale:
            keys.refuse("mscale", rope.get("mscale", 1.0), scale)
        if config.get("topk_method") == "greedy" and (config.get("n_group") or 1) > 1:
            keys.refuse("n_group", config["n_group"], 1)
        is_second = config["architectures"][0] == "DeepseekV2ForCausalLM"
        converted = keys.common(config | {"num_key_value_heads": 1, "head_dim": n_rot})
        converted |= keys.routing(config, "softmax" if is_second else "sigmoid")
        converted |= {
            "attention.kv_lora_rank": rank,
            "attention.key_length": rank + n_rot,
            "attention.value_length": rank,
            "attention.key_length_mla": int(config["qk_nope_head_dim"]) + n_rot,
            "attention.value_length_mla": int(config["v_head_dim"]),
        }
        if config.get("q_lora_rank"):
            converted["attention.q_lora_rank"] = int(config["q_lora_rank"])
        if scale:  # a tenth of it, as in llama.cpp
            converted["rope.scaling.yarn_log_multiplier"] = 0.1 * float(scale)
        return converted

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if "attn_kv_b." not in name:
            return ((name, x),)
        n = int(config["qk_nope_head_dim"])
        by_head = x.reshape(int(config["num_attention_heads"]), n + int(config["v_head_dim"]), -1)
        of_keys, of_values = np.split(by_head, [n], axis=1)
        return (
            (name.replace("kv_b", "k_b"), of_keys.swapaxes(1, 2)),
            (name.replace("kv_b", "v_b"), of_values),
        )
