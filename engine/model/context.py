"""What sessions and tasks need from a loaded model, so that they do not import it."""

from __future__ import annotations

from typing import Protocol

from engine.cache.context import CacheContext
from engine.config import ModelParameters
from engine.gguf import GGUFFile
from engine.hparams import HParams
from engine.scheduler.batch import BatchRunner
from engine.tokenizer import Tokenizer


class ModelContext(CacheContext, Protocol):
    """`engine.model.model.LoadedModel`, or a fake in tests."""

    @property
    def gguf(self) -> GGUFFile: ...

    @property
    def hp(self) -> HParams: ...

    @property
    def params(self) -> ModelParameters: ...

    @property
    def runner(self) -> BatchRunner: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def max_batch_tokens(self) -> int:
        """Maximum number of rows of a batch."""

    @property
    def closed(self) -> bool: ...

    def set_threads(self, n: int | None, /) -> None:
        """Set the number of CPU threads; None: as many as the model was loaded with."""
