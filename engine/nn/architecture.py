"""The base class of all architectures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from engine.ggml.tensor import Tensor
from engine.gguf import GGUFFile
from engine.graph.forward_context import ForwardContext
from engine.hparams import HParams
from engine.nn.binder import Binder
from engine.nn.hparams_reader import HParamsReader


class Architecture(ABC):
    """`read` reads the hyperparameters, `bind` names the tensors, `build` adds them to a graph."""

    name: ClassVar[str]  # `general.architecture`

    def __init__(self, hp: HParams) -> None:
        self.hp = hp

    @classmethod
    def hparams(cls, gguf: GGUFFile) -> HParams:
        """Read the hyperparameters. Raises ModelError or UnsupportedModelError, which name the key."""
        return cls.read(HParamsReader(gguf, cls.name))

    @classmethod
    @abstractmethod
    def read(cls, reader: HParamsReader) -> HParams:
        """The hyperparameters, each read through `reader`."""

    @abstractmethod
    def bind(self, binder: Binder) -> None:
        """Name every tensor once, and keep the modules that `binder` creates for them."""

    @abstractmethod
    def build(self, forward: ForwardContext) -> Tensor | None:
        """Build the graph of one batch and return its outputs; None if no row wants any.

        Outputs are logits [n_vocab, n_outputs]; with `forward.shape.hidden` the states [n_embd, n_outputs]
        that the head would read (encoders have no others); with `forward.shape.scores` what the
        classification head makes of these, [n_scores, n_outputs].
        """
