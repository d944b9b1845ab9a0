"""Hugging Face folders of GPT-2."""

from engine.convert.huggingface.base import Array, Config, Converted, Converter
from engine.convert.huggingface.names import GELU_TANH, below


class GPT2Converter(Converter):
    architecture = "gpt2"
    model_classes = ("GPT2LMHeadModel",)
    tied_by_default = True
    tensor_names = {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    } | below(
        "transformer.h",
        {
            "ln_1": "attn_norm",
            "attn.c_attn": "attn_qkv",
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
    )
    tensor_names |= {name.removeprefix("transformer."): target for name, target in tensor_names.items()}
    supported_settings = {
        "activation_function": GELU_TANH,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        # Conv1D stores its matrices transposed.
        return ((name, x.T if x.ndim == 2 and name.startswith("blk.") else x),)
