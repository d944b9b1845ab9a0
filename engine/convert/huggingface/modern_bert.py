"""Hugging Face folders of ModernBERT."""

from typing import Any

from engine.architectures.modern_bert import FULL_EACH
from engine.convert.huggingface import keys
from engine.convert.huggingface.base import Config, Converter
from engine.convert.huggingface.names import below
from engine.hparams import POOLING


class ModernBertConverter(Converter):
    architecture = "modern-bert"
    model_classes = ("ModernBertModel", "ModernBertForMaskedLM")
    tensor_names = {
        "model.embeddings.tok_embeddings": "token_embd",
        "model.embeddings.norm": "token_embd_norm",
        "model.final_norm": "output_norm",
    } | below(
        "model.layers",
        {
            "attn_norm": "attn_norm",
            "attn.Wqkv": "attn_qkv",
            "attn.Wo": "attn_output",
            "mlp_norm": "ffn_norm",
            "mlp.Wi": "ffn_up",
            "mlp.Wo": "ffn_down",
        },
    )
    ignored = ("head.", "decoder.")  # of its pre-training
    supported_settings = {"hidden_activation": ("gelu",), "attention_bias": (False,), "mlp_bias": (False,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        n = int(config.get("global_attn_every_n_layers") or FULL_EACH)
        kinds = config.get("layer_types") or ()
        if any((kind == "full_attention") != (i % n == 0) for i, kind in enumerate(kinds)):
            keys.refuse("layer_types", kinds, f"full_attention in the first of each {n} layers")
        local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
        theta = config.get("global_rope_theta", 160000.0)
        return keys.common({"rope_theta": theta} | config) | {
            "attention.causal": False,
            "attention.sliding_window": int(config.get("local_attention", 128)),
            "attention.sliding_window_pattern": n,
            "rope.freq_base_swa": float(local.get("rope_theta") or config.get("local_rope_theta", 10000.0)),
            "rope.scaling.type": "none",
            "hidden_activation": "gelu",
            "classifier.pooling_type": POOLING.index(config.get("classifier_pooling", "cls")),
        }
