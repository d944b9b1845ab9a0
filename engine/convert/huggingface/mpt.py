"""Hugging Face folders of MPT."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import below


class MPTConverter(Converter):
    architecture = "mpt"
    model_classes = ("MPTForCausalLM", "MptForCausalLM")
    tied_by_default = True
    supported_settings = {
        "norm_type": ("low_precision_layernorm", "layernorm"),
        "logit_scale": (1.0,),
        "embedding_fraction": (1.0,),
        "ffn_config.ffn_type": ("mptmlp",),
        "attn_config.attn_type": ("multihead_attention", "multiquery_attention", "grouped_query_attention"),
        "attn_config.prefix_lm": (False,),
        "attn_config.qk_gn": (False,),
        "attn_config.rope": (False,),
        "attn_config.sliding_window_size": (-1,),
    }
    tensor_names = {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.norm_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.blocks",
        {
            "norm_1": "attn_norm",
            "attn.Wqkv": "attn_qkv",
            "attn.q_ln": "attn_q_norm",
            "attn.k_ln": "attn_k_norm",
            "attn.out_proj": "attn_output",
            "norm_2": "ffn_norm",
            "ffn.up_proj": "ffn_up",
            "ffn.down_proj": "ffn_down",
        },
    )

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        attention = config.get("attn_config") or {}
        converted = keys.common(config) | {"attention.layer_norm_epsilon": 1e-5}
        one = attention.get("attn_type") == "multiquery_attention"
        if kv := 1 if one else attention.get("kv_n_heads"):
            converted["attention.head_count_kv"] = int(kv)
        if scale := attention.get("softmax_scale"):
            converted["attention.scale"] = float(scale)
        if clip := attention.get("clip_qkv"):
            converted["attention.clamp_kqv"] = float(clip)
        alibi = attention.get("alibi", True)
        converted["attention.max_alibi_bias"] = float(attention.get("alibi_bias_max", 8)) if alibi else 0.0
        return converted
