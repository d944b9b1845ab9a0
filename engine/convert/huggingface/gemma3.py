"""Hugging Face folders of Gemma 3, the text part."""

from typing import Any, ClassVar

from engine.convert.huggingface.base import Config
from engine.convert.huggingface.gemma2 import Gemma2Converter
from engine.convert.huggingface.names import QK_NORMS


class Gemma3Converter(Gemma2Converter):
    architecture = "gemma3"
    model_classes: ClassVar[tuple[str, ...]] = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    full_attention_each = 6
    ignored = (
        *("vision_tower.", "multi_modal_projector."),
        *("model.vision_tower.", "model.multi_modal_projector."),
    )
    config_defaults = {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "query_pre_attn_scalar": 256,
        "vocab_size": 262208,
        "tie_word_embeddings": True,
    }
    tensor_names = Gemma2Converter.tensor_names | QK_NORMS

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        converted = super().convert_keys(config)
        local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
        base = local.get("rope_theta") or config.get("rope_local_base_freq", 10000.0)
        return converted | {"rope.freq_base_swa": float(base)}
