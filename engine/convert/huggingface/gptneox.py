"""Hugging Face folders of GPT-NeoX, Pythia, Dolly, RedPajama, StableLM-alpha."""

from typing import Any

from engine.architectures import gptneox
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import below, by_parts


class GPTNeoXConverter(Converter):
    architecture = "gptneox"
    model_classes = ("GPTNeoXForCausalLM",)
    tensor_names = {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
    } | below(
        "gpt_neox.layers",
        {
            "input_layernorm": "attn_norm",
            "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
    )
    supported_settings = {"hidden_act": ("gelu", "gelu_fast")}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        old = {"rope_theta": config.get("rotary_emb_base", 10000.0)}
        if "rotary_pct" in config:
            old["partial_rotary_factor"] = config["rotary_pct"]
        converted = keys.common(old | config)
        usual = "gelu_fast" if converted["block_count"] == gptneox.LAYERS_OF_20B else "gelu"
        keys.only(config, "hidden_act", usual)
        return converted | {"use_parallel_residual": bool(config.get("use_parallel_residual", True))}

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        return ((name, by_parts(x, config["num_attention_heads"]) if ".attn_qkv." in name else x),)
