"""Mappings from Hugging Face folders to GGUF: one file per architecture, named as in `engine.architectures`.

Used by `engine.convert` only. A new file is found by its name; nothing is registered.
"""

from __future__ import annotations

import importlib

from engine import architectures
from engine.convert.huggingface.base import Config, Converter
from engine.errors import UnsupportedModelError


def converter_of(architecture: str) -> type[Converter]:
    """The converter of the architecture that GGUF files call `architecture`."""
    path = f"{__name__}.{architectures.module_name(architecture)}"
    names = vars(importlib.import_module(path)).values()
    classes = [n for n in names if isinstance(n, type) and issubclass(n, Converter)]
    return next(c for c in classes if c.__module__ == path)  # the others are imported


def converter_for(model_class: str, config: Config) -> type[Converter]:
    """The converter of a class of transformers, such as LlamaForCausalLM. config: what config.json has.

    Raises UnsupportedModelError, which lists the supported classes.
    """
    converters: dict[str, list[type[Converter]]] = {}
    for converter in map(converter_of, architectures.names()):
        for name in converter.model_classes:
            converters.setdefault(name, []).append(converter)
    # A model without its head, as embedding models are published.
    with_head = model_class.removesuffix("Model") + "ForCausalLM"
    if model_class.endswith("Model") and model_class not in converters and with_head in converters:
        model_class = with_head
    if model_class not in converters:
        raise UnsupportedModelError(
            f"config.json says {model_class}, which is not supported "
            f"(supported: {', '.join(sorted(converters))}); "
            "CONTRIBUTING.md has the checklist for adding an architecture"
        )
    of_class = converters[model_class]
    return next((converter for converter in of_class if converter.converts(config)), of_class[0])
