"""Hugging Face folders of EmbeddingGemma, without the matrices of sentence-transformers behind it."""

from typing import Any

from engine.convert.huggingface.base import Config
from engine.convert.huggingface.gemma3 import Gemma3Converter


class GemmaEmbeddingConverter(Gemma3Converter):
    architecture = "gemma-embedding"
    model_classes = ("Gemma3TextModel",)
    supported_settings = Gemma3Converter.supported_settings | {"use_bidirectional_attention": (True,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return super().convert_keys(config) | {"attention.causal": False}
