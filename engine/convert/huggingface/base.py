"""Base class of the converters: what one architecture's Hugging Face folders need to become GGUF."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from engine.convert.huggingface import keys
from engine.convert.huggingface.keys import Config as Config

Array = np.ndarray[Any, np.dtype[Any]]
Converted = Iterable[tuple[str, Array]]


class Converter:
    """Mapping of one architecture; subclasses override what differs. Never instantiated.

    `architecture`: its name in GGUF. `model_classes`: the classes of transformers that it covers.
    """

    architecture: ClassVar[str]
    model_classes: ClassVar[tuple[str, ...]]

    # Module name -> GGUF name. {i}: the layer; {e}: the expert or head, one tensor for each, to be stacked.
    tensor_names: ClassVar[dict[str, str]] = {}
    # Numbers that every layer has as tensors, name -> GGUF key (without the architecture) of their array.
    layer_keys: ClassVar[dict[str, str]] = {}
    # Matrices of sentence-transformers behind the model, if it has any.
    dense_modules: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[tuple[str, ...]] = ()  # prefixes of tensors that are left out

    # Whether layers beyond `num_hidden_layers` only predict further tokens (MTP), and are left out.
    predicts_more: ClassVar[bool] = False

    # Settings that would change the graph, and the values for which it is right. `a.b` is b inside of a.
    supported_settings: ClassVar[dict[str, tuple[Any, ...]]] = {"hidden_act": ("silu", "swish")}
    config_defaults: ClassVar[Config] = {}  # of transformers, where published config.json files rely on them
    tied_by_default: ClassVar[bool] = False  # `tie_word_embeddings` where config.json leaves it out

    @classmethod
    def converts(cls, config: Config) -> bool:
        """Whether this converter is the one for the model, if several have its class."""
        return True

    @classmethod
    def convert_keys(cls, config: Config) -> dict[str, Any]:
        """GGUF keys without the architecture's prefix.

        Raises UnsupportedModelError for a setting that no key can express, ModelError for a missing one.
        """
        return keys.common(config)

    @classmethod
    def convert_tensor(cls, name: str, x: Array, config: Config) -> Converted:
        """The tensors (GGUF name, array) that result; also called with empty arrays, for the shapes.

        x: numpy's order, rows first; float32, or uint8 for MXFP4 blocks, whose rows can only be moved whole.
        """
        return ((name, x),)

    @classmethod
    def extra_tensors(cls, config: Config) -> dict[str, Array]:
        """Float32 vectors that follow from config.json and are not in the checkpoint."""
        return {}
