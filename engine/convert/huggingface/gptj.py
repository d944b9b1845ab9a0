"""Hugging Face folders of GPT-J."""

from typing import Any

from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import GELU_TANH, below


class GPTJConverter(Converter):
    architecture = "gptj"
    model_classes = ("GPTJForCausalLM",)
    tensor_names = {
        "transformer.wte": "token_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "ln_1": "attn_norm",
            "attn.q_proj": "attn_q",
            "attn.k_proj": "attn_k",
            "attn.v_proj": "attn_v",
            "attn.out_proj": "attn_output",
            "mlp.fc_in": "ffn_up",
            "mlp.fc_out": "ffn_down",
        },
    )
    supported_settings = {"activation_function": GELU_TANH}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        head_dim = config["n_embd"] // config["n_head"]
        return keys.common(config) | {"rope.dimension_count": int(config.get("rotary_dim") or head_dim)}
