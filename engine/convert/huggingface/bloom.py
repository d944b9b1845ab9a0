"""Hugging Face folders of BLOOM."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below, by_parts


class BloomConverter(Converter):
    architecture = "bloom"
    model_classes = ("BloomForCausalLM", "BloomModel")
    tied_by_default = True
    tensor_names = {
        "transformer.word_embeddings": "token_embd",
        "transformer.word_embeddings_layernorm": "token_embd_norm",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "input_layernorm": "attn_norm",
            "self_attention.query_key_value": "attn_qkv",
            "self_attention.dense": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
    )
    tensor_names |= {name.removeprefix("transformer."): target for name, target in tensor_names.items()}
    supported_settings = {"apply_residual_connection_post_layernorm": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common({"seq_length": 2048} | config)
        return converted | {"attention.head_count_kv": converted["attention.head_count"]}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return ((name, by_parts(x, config["n_head"]) if ".attn_qkv." in name else x),)
