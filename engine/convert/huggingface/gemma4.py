"""Hugging Face folders of Gemma 4, the text part."""

from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converter
from engine.convert.huggingface.gemma2 import Gemma2Converter
from engine.convert.huggingface.names import GELU_TANH, QK_NORMS

UNROTATED = 1e30  # divides the frequencies that are not rotated


class Gemma4Converter(Converter):
    architecture = "gemma4"
    model_classes = ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
    tied_by_default = True
    ignored = tuple(
        f"{prefix}{part}."
        for prefix in ("", "model.")
        for part in ("vision_tower", "audio_tower", "embed_vision", "embed_audio")
    )
    tensor_names = (
        Gemma2Converter.tensor_names
        | QK_NORMS
        | {
            "model.embed_tokens_per_layer": "per_layer_token_embd",
            "model.per_layer_model_projection": "per_layer_model_proj",
            "model.per_layer_projection_norm": "per_layer_proj_norm",
            "model.layers.{i}.per_layer_input_gate": "blk.{i}.inp_gate",
            "model.layers.{i}.per_layer_projection": "blk.{i}.proj",
            "model.layers.{i}.post_per_layer_input_norm": "blk.{i}.post_norm",
            "model.layers.{i}.post_feedforward_layernorm_1": "blk.{i}.post_ffw_norm_1",
            "model.layers.{i}.pre_feedforward_layernorm_2": "blk.{i}.pre_ffw_norm_2",
            "model.layers.{i}.post_feedforward_layernorm_2": "blk.{i}.post_ffw_norm_2",
            "model.layers.{i}.router.proj": "blk.{i}.ffn_gate_inp",
            "model.layers.{i}.router.scale": "blk.{i}.ffn_gate_inp.scale",
            "model.layers.{i}.router.per_expert_scale": "blk.{i}.ffn_down_exps.scale",
            "model.layers.{i}.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps",
            "model.layers.{i}.experts.down_proj": "blk.{i}.ffn_down_exps",
            "model.layers.{i}.layer_scalar": "blk.{i}.layer_output_scale",
        }
    )
    supported_settings = {
        "hidden_activation": GELU_TANH,
        "attention_bias": (False,),
        "use_bidirectional_attention": ("vision",),
        "rope_parameters.full_attention.rope_type": ("proportional",),
    }

    @classmethod
    def full(cls, config: Config, name: str, usual: str) -> Any:
        """A setting of the layers without a window: of its own, or of one of these layers."""
        first = config["layer_types"].index("full_attention")
        of_layer = (config.get("per_layer_config") or {}).get(str(first)) or {}
        return config.get(name) or of_layer.get(usual) or config[usual]

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        dim, n_read = int(config["head_dim"]), int(config.get("num_kv_shared_layers") or 0)
        head_dim = int(cls.full(config, "global_head_dim", "head_dim"))
        n_kv = int(cls.full(config, "num_global_key_value_heads", "num_key_value_heads"))
        converted = keys.common(config) | keys.windows(config, 6)
        n_ff = converted["feed_forward_length"]
        windows = converted["attention.sliding_window_pattern"]
        heads = [int(config["num_key_value_heads"]) if local else n_kv for local in windows]
        if config.get("use_double_wide_mlp"):
            own = converted["block_count"] - n_read
            n_ff = [n_ff if i < own else 2 * n_ff for i in range(converted["block_count"])]
        if config.get("top_k_experts"):
            converted["expert_used_count"] = int(config["top_k_experts"])
        if config.get("final_logit_softcapping"):
            converted["final_logit_softcapping"] = float(config["final_logit_softcapping"])
        return converted | {
            "feed_forward_length": n_ff,
            "attention.head_count_kv": heads if len(set(heads)) > 1 else n_kv,
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
            "attention.key_length_swa": dim,
            "attention.value_length_swa": dim,
            "attention.shared_kv_layers": n_read,
            "rope.dimension_count": head_dim,
            "rope.dimension_count_swa": dim,
            "embedding_length_per_layer_input": int(config.get("hidden_size_per_layer_input") or 0),
        }

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        half = int(cls.full(config, "global_head_dim", "head_dim")) // 2
        n = int(half * config["rope_parameters"]["full_attention"]["partial_rotary_factor"])
        return {"rope_freqs.weight": np.array([1.0] * n + [UNROTATED] * (half - n), np.float32)}
