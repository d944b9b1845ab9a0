"""Hugging Face folders of ERNIE 4.5, the dense models."""

from typing import ClassVar

from engine.convert.huggingface.base import Converter
from engine.convert.huggingface.names import STANDARD


class Ernie45Converter(Converter):
    architecture = "ernie4_5"
    model_classes: ClassVar[tuple[str, ...]] = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
    tensor_names = STANDARD
    tied_by_default = True
    config_defaults = {"rope_theta": 500000.0, "head_dim": 128}
