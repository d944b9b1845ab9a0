"""The `Model` of the Python API: a loaded model with its scheduler, sessions and tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import DRAFT_MODEL, InferenceSessionConfig, ModelParameters, SchedulerConfig
from engine.constraint.compiler import ConstraintCompiler, vocabulary_of
from engine.constraint.guide import OutputGuides
from engine.errors import ModelError
from engine.model.description import describe
from engine.model.model import LoadedModel
from engine.sampling.dry_breakers import DryBreakers
from engine.scheduler.draft_model import ModelDrafter
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.sequence import compiled_sampler
from engine.session import InferenceSession
from engine.tasks import embedding
from engine.tasks.runner import TaskRunner
from engine.types import ProgressCallback


def load(
    path: str | os.PathLike[str],
    params: ModelParameters | None = None,
    progress: ProgressCallback | None = None,
) -> Model:
    """Load a GGUF file. `progress(fraction, text)` is called while weights are loaded.

    Raises ModelError for a damaged file, UnsupportedModelError for an unsupported architecture or variant,
    ConfigError for parameters out of range, and OutOfMemoryError and DeviceError.
    """
    return Model(path, params, progress)


class Model(LoadedModel):
    """A model ready to run: a scheduler, sessions and tasks share its cells and its prefix cache.

    Only one thread may use it at a time: the engine thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        params: ModelParameters | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        super().__init__(path, params, progress)
        self._make_sampler = partial(compiled_sampler, breakers=lambda texts: self._breakers.sequences(texts))
        self._compiler = ConstraintCompiler(lambda: vocabulary_of(self.tokenizer, self.hp.n_vocab))

    @cached_property
    def _breakers(self) -> DryBreakers:
        return DryBreakers(self.tokenizer)

    @property
    def generates(self) -> bool:
        """Whether it generates text; otherwise it only computes embeddings."""
        return self.hp.causal

    def scheduler(self, parallel: int | None = None) -> Scheduler:
        """A scheduler that runs requests on this model.

        parallel: sequences decoded together; None: as loaded. Raises ModelError for a model that only
        computes embeddings.
        """
        self._check_generates()
        config = SchedulerConfig(
            parallel=parallel or self.params.parallel,
            n_ctx=self.n_ctx,
            max_batch_tokens=self.max_batch_tokens,
            eog_ids=self.eog_ids,
            n_adapters=len(self.adapters),
            context_shift=self.params.context_shift,
        )
        scheduler = Scheduler(
            self.runner, self.pool, config, self._make_sampler, prefix=self.prefix, guides=self.guides()
        )
        if (draft := self.draft) is not None:
            scheduler.drafting.drafters[DRAFT_MODEL] = ModelDrafter(
                draft.runner,
                draft.pool,
                draft.prefix,
                n_ctx=draft.n_ctx,
                n_vocab=self.n_draft_vocab,
                max_batch_tokens=draft.max_batch_tokens,
            )
        return scheduler

    def tasks(self) -> TaskRunner:
        """A runner for embeddings, prompt log-probabilities and saved slots, in steps between the
        scheduler's.
        """
        self._check_open()
        return TaskRunner(self)

    def start_session(self, config: InferenceSessionConfig | None = None) -> InferenceSession:
        """A session for use in this process without a scheduler.

        Raises ModelError for a model that only computes embeddings.
        """
        self._check_generates()
        return InferenceSession(self, config, guides=self.guides, sampler_factory=self._make_sampler)

    def restore_session(
        self,
        path: str | os.PathLike[str],
        config: InferenceSessionConfig | None = None,
        progress: ProgressCallback | None = None,
    ) -> InferenceSession:
        """The session that `InferenceSession.save` wrote.

        Raises ModelError if the file is damaged or of another model, ConfigError if the model was loaded with
        another `kv_type` or too small a context, OutOfMemoryError if the cache has no room for it.
        """
        session = self.start_session(config)
        try:
            session.restore(path, progress)
        except BaseException:
            session.close()
            raise
        return session

    def embed(
        self, tokens: Sequence[int], *, pooling: str = "auto", normalize: bool | None = None, second: int = 0
    ) -> NDArray[np.float32]:
        """The embedding of a text: float32 [n_embd]. For many texts use `engine.tasks.embedding.embed`."""
        self._check_open()
        results = embedding.embed(self, [tokens], pooling=pooling, normalize=normalize, second=[second])
        (result,) = filter(None, results)
        return result.vector

    def guides(self) -> OutputGuides:
        """Constrained decoding for one scheduler or session; compiled constraints are shared by all."""
        return OutputGuides(self._compiler, self._token_bytes, self.hp.n_vocab, self.eog_ids)

    def describe(self) -> dict[str, Any]:
        """What was loaded and where it is, as plain data."""
        self._check_open()
        return describe(self)

    def close(self) -> None:
        super().close()
        self._compiler.close()

    def _token_bytes(self, token: int) -> bytes:
        """The bytes that a token contributes to text: none for a logit that belongs to no token."""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.n_vocab else b""

    def _check_generates(self) -> None:
        self._check_open()
        if not self.hp.causal:
            raise ModelError(
                f"{self.gguf.path}: a {self.gguf.arch} model makes embeddings; it cannot generate text"
            )
