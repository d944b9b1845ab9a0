"""Hugging Face folders of Seed-OSS."""

from engine.convert.huggingface.base import Converter
from engine.convert.huggingface.names import STANDARD


class SeedOSSConverter(Converter):
    architecture = "seed_oss"
    model_classes = ("SeedOssForCausalLM",)
    tensor_names = STANDARD | {
        "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    }
