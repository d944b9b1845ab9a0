"""Hugging Face folders of Command-R7B and Command-A (Cohere)."""

from typing import Any

from engine.architectures.cohere2 import FULL_EACH
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import STANDARD


class Cohere2Converter(Converter):
    architecture = "cohere2"
    model_classes = ("Cohere2ForCausalLM",)
    tensor_names = STANDARD
    tied_by_default = True
    supported_settings = Converter.supported_settings | {
        "attention_bias": (False,),
        "use_embedding_sharing": (True,),
        "use_gated_activation": (True,),
        "use_parallel_block": (True,),
        "use_parallel_embedding": (False,),
        "use_qk_norm": (False,),
        "rotary_pct": (1.0,),
        "position_embedding_type": ("rope_gptj",),
        "layer_switch": (FULL_EACH,),
        "order_of_interleaved_layers": ("local_attn_first",),
    }

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = keys.common(config) | keys.windows(config, FULL_EACH)
        scale = float(config.get("logit_scale", 0.0625))
        return converted | {"logit_scale": scale, "rope.scaling.type": "none"}
