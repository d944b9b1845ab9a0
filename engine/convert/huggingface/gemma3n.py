"""Hugging Face folders of Gemma 3n, the text part."""

from statistics import NormalDist
from typing import Any

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.gemma4 import Gemma4Converter
from engine.convert.huggingface.names import GELU_TANH


class Gemma3nConverter(Converter):
    architecture = "gemma3n"
    model_classes = ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")
    tied_by_default = True
    ignored = Gemma4Converter.ignored
    tensor_names = Gemma4Converter.tensor_names | {
        "model.altup_projections.{e}": "altup_proj",
        "model.altup_unembed_projections.{e}": "altup_unembd_proj",
        "model.layers.{i}.post_per_layer_input_norm": "blk.{i}.post_norm",
        "model.layers.{i}.altup.correct_output_scale": "blk.{i}.altup_correct_scale.weight",
        "model.layers.{i}.altup.correction_coefs": "blk.{i}.altup_correct_coef",
        "model.layers.{i}.altup.prediction_coefs": "blk.{i}.altup_predict_coef",
        "model.layers.{i}.altup.modality_router": "blk.{i}.altup_router",
        "model.layers.{i}.altup.router_norm": "blk.{i}.altup_router_norm",
        "model.layers.{i}.laurel.linear_left": "blk.{i}.laurel_l",
        "model.layers.{i}.laurel.linear_right": "blk.{i}.laurel_r",
        "model.layers.{i}.laurel.post_laurel_norm": "blk.{i}.laurel_post_norm",
    }
    supported_settings = {
        "hidden_activation": GELU_TANH,
        "attention_bias": (False,),
        "altup_active_idx": (0,),
        "altup_correct_scale": (True,),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        n_ff = config["intermediate_size"]
        sizes = n_ff if isinstance(n_ff, list) else [n_ff] * int(config["num_hidden_layers"])
        converted = keys.common(config | {"intermediate_size": sizes[0]}) | keys.windows(config, 5)
        sparsity = config["activation_sparsity_pattern"]
        normal = NormalDist()
        return converted | {
            "feed_forward_length": sizes,
            "final_logit_softcapping": float(config.get("final_logit_softcapping") or 0.0),
            "attention.shared_kv_layers": int(config["num_kv_shared_layers"]),
            "embedding_length_per_layer_input": int(config["hidden_size_per_layer_input"]),
            "altup.active_idx": int(config["altup_active_idx"]),
            "altup.num_inputs": int(config["altup_num_inputs"]),
            "activation_sparsity_scale": [
                normal.inv_cdf(float(np.float32(s))) if s > 0 else -np.inf for s in sparsity
            ],
        }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        if name in ("token_embd.weight", "per_layer_token_embd.weight"):  # images and sounds have no rows
            x = np.concatenate([x, np.zeros((int(config["vocab_size"]) - len(x), x.shape[1]), x.dtype)])
        return ((name, x),)
