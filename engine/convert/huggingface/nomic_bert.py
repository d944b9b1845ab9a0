"""Hugging Face folders of Nomic BERT."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import below


class NomicBertConverter(Converter):
    architecture = "nomic-bert"
    model_classes = ("NomicBertModel",)
    tensor_names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.token_type_embeddings": "token_types",
        "emb_ln": "token_embd_norm",
    } | below(
        "encoder.layers",
        {
            "attn.Wqkv": "attn_qkv",
            "attn.out_proj": "attn_output",
            "norm1": "attn_output_norm",
            "mlp.fc11": "ffn_up",
            "mlp.fc12": "ffn_gate",
            "mlp.fc2": "ffn_down",
            "norm2": "layer_output_norm",
        },
    )
    tensor_names |= {
        name.replace("encoder.layers", "bert.encoder.layers"): target for name, target in tensor_names.items()
    }
    supported_settings = {
        "activation_function": ("swiglu",),
        "hidden_act": ("silu",),
        "causal": (False,),
        "prenorm": (False,),
        "qkv_proj_bias": (False,),
        "mlp_fc1_bias": (False,),
        "mlp_fc2_bias": (False,),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False,),
        "rotary_emb_scale_base": (),
        "moe_every_n_layers": (0,),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common({"rope_theta": config.get("rotary_emb_base"), **config})
        # The published 8192 positions rely on dynamic NTK scaling, which is not implemented.
        trained = config.get("max_trained_positions")
        if trained and "n_positions" in config:
            converted["context_length"] = min(int(trained), converted["context_length"])
        return converted | {"attention.causal": False}
