"""Hugging Face folders of EmbeddingGemma, with the two matrices of sentence-transformers behind it."""

from typing import Any

from engine.convert.huggingface.base import Config
from engine.convert.huggingface.gemma3 import Gemma3Converter


class GemmaEmbeddingConverter(Gemma3Converter):
    architecture = "gemma-embedding"
    model_classes = ("Gemma3TextModel",)
    dense_modules = ("dense_2", "dense_3")
    tensor_names = Gemma3Converter.tensor_names | {f"{name}.linear": name for name in dense_modules}
    supported_settings = Gemma3Converter.supported_settings | {"use_bidirectional_attention": (True,)}

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        return super().convert_keys(config) | {"attention.causal": False}
