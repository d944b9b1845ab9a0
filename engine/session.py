"""The session of the Python API: feed tokens, read logits, generate, rewind."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.cache import session_file
from engine.cache.cached_sequence import CachedSequence
from engine.config import (
    InferenceSessionConfig,
    adapter_scales,
    default_adapters,
    n_shifted,
    shift_size,
)
from engine.constraint.guide import OutputGuide, OutputGuides
from engine.errors import ConfigError, ContextOverflowError, SessionClosedError
from engine.model.context import ModelContext
from engine.scheduler.batch import next_item
from engine.scheduler.sequence import SamplerFactory, TokenSampler, compiled_sampler
from engine.tokenizer.detokenizer import Detokenizer
from engine.types import AdapterScales, Constraint, InferenceParameters, ProgressCallback, Reasoning


class GeneratedToken(NamedTuple):
    """One token of `InferenceSession.infer`.

    text: the characters that it completes; empty inside of a character that takes several tokens, and for
        tokens without text, such as an end-of-generation token.
    logprob: natural log of its probability in the unmodified softmax.
    """

    id: int
    text: str
    logprob: float


class InferenceSession:
    """One conversation with a model, in the caller's thread; only one thread may use a model at a time.

    Sessions and a scheduler of the same model share its cells and its prefix cache. A session is a context
    manager; closing it leaves what it computed in the prefix cache.
    """

    def __init__(
        self,
        model: ModelContext,
        config: InferenceSessionConfig | None = None,
        *,
        guides: Callable[[], OutputGuides] | None = None,
        sampler_factory: SamplerFactory = compiled_sampler,
    ) -> None:
        """guides: creates guides for constraints and reasoning blocks; without it they are refused."""
        config = config if config is not None else InferenceSessionConfig()
        if config.n_batch < 1:
            raise ConfigError(f"n_batch is {config.n_batch}; it must be at least 1")
        self.config = config
        self.n_batch = min(config.n_batch, model.max_batch_tokens)
        self.n_dropped = 0  # tokens that gave way in a full context
        self._n_keep = max(config.n_keep, 0)
        self._model = model
        self._make_guides = guides
        self._sampler_factory = sampler_factory
        prefix = model.prefix if config.cache_prompt else None
        lora = default_adapters(model.params) if config.lora is None else config.lora
        self._sequence = CachedSequence(
            model.pool,
            prefix,
            original_context_length=model.runner.original_context_length,
            adapters=adapter_scales(lora, len(model.adapters)),
        )
        self._logits: NDArray[np.float32] | None = None
        # A session that is dropped without close() must not keep its cells for ever.
        self._release = weakref.finalize(self, self._sequence.release)

    @property
    def tokens(self) -> list[int]:
        """All tokens, fed and generated, except those that context shifts dropped."""
        return self._sequence.tokens.tolist()

    @property
    def n_past(self) -> int:
        """How many of them are in the KV cache. The last generated token is computed when it is needed."""
        return self._sequence.n_past

    @property
    def lora(self) -> AdapterScales:
        """(number, scale) of the LoRA adapters in use."""
        return self._sequence.adapters

    @property
    def last_logits(self) -> NDArray[np.float32]:
        """The logits after the last token, float32 [n_vocab]; a copy."""
        return self._current_logits().copy()

    def feed_prompt(self, prompt: str | Sequence[int], *, parse_special: bool = False) -> None:
        """Add text or token ids and compute them, `n_batch` at a time.

        The first text gets the model's beginning-of-sequence token if the model uses one. parse_special:
        texts of control tokens in `prompt` become these tokens. With `ModelParameters.context_shift` earlier
        tokens give way to new ones that do not fit behind them. If anything fails, the session stays as it
        was.
        """
        self._require_open()
        sequence, before, n_dropped = self._sequence, self._sequence.tokens[:], self.n_dropped
        n_before = len(before)
        ids = self._to_ids(prompt, parse_special)
        if not ids:
            if not n_before:
                raise ConfigError("the prompt is empty; feed at least one token")
            return
        n = n_before + len(ids)
        if n > self._model.n_ctx:
            self._shift(n - 1, n_before)
        sequence.mark()  # the end of a turn, for those who rewind to it
        sequence.tokens.extend(ids)
        try:
            self._compute()
        except BaseException:
            if self.n_dropped == n_dropped:
                sequence.truncate(n_before)
            else:
                sequence.release()
                sequence.tokens[:], self.n_dropped, self._logits = before, n_dropped, None
            raise
        sequence.publish()

    def infer(
        self,
        params: InferenceParameters | None = None,
        constraint: Constraint | None = None,
        thinking: Reasoning | None = None,
    ) -> Iterator[GeneratedToken]:
        """Generate tokens on demand. Each is added to the session before it is yielded.

        Ends with an end-of-generation or stop token (which is yielded too), after `max_tokens`, when the
        context is full (with `ModelParameters.context_shift` tokens give way then), or where the constraint
        lets nothing follow. Raises ConfigError for a constraint that cannot be compiled, and later if nothing
        can meet it any more. thinking: a reasoning block.
        """
        self._require_open()
        sequence = self._sequence
        if not sequence.tokens:
            raise ConfigError("the session is empty; feed a prompt before generating")
        params = params if params is not None else InferenceParameters()
        if params.logprobs is None:
            params = msgspec.structs.replace(params, logprobs=0)
        model = self._model
        if self.config.n_keep < 0:
            self._n_keep = len(sequence.tokens)
        eog_ids = model.tokenizer.eog_ids
        sampler = self._sampler_factory(params, model.runner.n_vocab, eog_ids, history=sequence.tokens[:])
        stop_ids = frozenset(params.stop_token_ids)
        guides = guide = None
        if constraint is not None or thinking is not None:
            if self._make_guides is None:
                raise ConfigError("this session does not support constraints or reasoning blocks")
            guides = self._make_guides()
            guide = guides.compile(constraint, thinking).result()
        stop_ids = stop_ids if params.ignore_eos else stop_ids | eog_ids
        return self._generate(params, sampler, stop_ids, guides, guide)

    def rewind(self, n: int) -> None:
        """Forget the last `n` tokens."""
        self._require_open()
        n_tokens = len(self._sequence.tokens)
        if not 0 <= n <= n_tokens:
            raise ConfigError(f"cannot rewind {n} tokens: the session has {n_tokens}")
        if n:
            self._sequence.truncate(n_tokens - n)
            self._logits = None

    def save(self, path: str | os.PathLike[str], progress: ProgressCallback | None = None) -> int:
        """Write the session to a file for `Model.restore_session`; return the file's size in bytes.

        An existing file is replaced only once all is written. Raises StorageError if that fails, ConfigError
        if the session is empty.
        """
        self._require_open()
        return session_file.save(path, self._model, self._sequence, self._logits, progress)

    def restore(self, path: str | os.PathLike[str], progress: ProgressCallback | None = None) -> None:
        """Become the session that `save` wrote, with its adapters; see `engine.cache.session_file.restore`.

        The session must be empty, and stays so if anything fails.
        """
        self._require_open()
        if self._sequence.tokens:
            raise ConfigError("a session that has tokens cannot be restored; start a new one")
        self._logits = session_file.restore(path, self._model, self._sequence, progress)

    def close(self) -> None:
        """Free the cells. Everything but `close` then raises SessionClosedError."""
        self._release()
        self._logits = None

    def __enter__(self) -> InferenceSession:
        self._require_open()
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _to_ids(self, prompt: str | Sequence[int], parse_special: bool) -> Sequence[int]:
        if isinstance(prompt, str):
            first = not self._sequence.tokens
            ids: list[int] = self._model.tokenizer.encode(
                prompt, add_special=first, parse_special=parse_special
            )
            return ids
        n_vocab = self._model.runner.n_vocab
        for token in prompt:
            if not 0 <= token < n_vocab:
                raise ConfigError(f"token id {token} is outside of the vocabulary of {n_vocab} tokens")
        return prompt

    def _generate(
        self,
        params: InferenceParameters,
        sampler: TokenSampler,
        stop_ids: frozenset[int],
        guides: OutputGuides | None,
        guide: OutputGuide | None,
    ) -> Iterator[GeneratedToken]:
        sequence, detokenizer = self._sequence, Detokenizer(self._model.tokenizer)
        n_ctx, shifts, n_max = self._model.n_ctx, self._model.params.context_shift, params.max_tokens
        n, done = 0, n_max == 0
        while not done and (shifts or len(sequence.tokens) < n_ctx):
            if len(sequence.tokens) >= n_ctx:
                self._shift(len(sequence.tokens), len(sequence.tokens))
            mask = None if guides is None or guide is None else guides.fill(guide)
            try:
                token = sampler.sample(self._current_logits(), mask)
            except ConfigError:
                if guide is not None and guide.may_stop:  # only an end is allowed, but params forbid it
                    return
                raise
            sequence.tokens.append(token.id)
            self._logits = None
            n += 1
            done = n == n_max or (len(sequence.tokens) >= n_ctx and not shifts)
            stops = token.id in stop_ids and n > params.min_tokens
            if guide is not None and not stops:
                guide.commit(token.id)
                stops = guide.must_stop
            done = done or stops
            text = detokenizer.push(token.id)
            if done:
                text += detokenizer.flush()
            assert token.logprob is not None
            yield GeneratedToken(token.id, text, token.logprob)

    def _shift(self, n_tokens: int, n_before: int) -> None:
        """Drop tokens so that one more fits behind `n_tokens`, of which the session has `n_before`.

        Raises ContextOverflowError where contexts do not shift, or what may give way is not enough.
        """
        sequence, n_ctx, config = self._sequence, self._model.n_ctx, self.config
        n_keep, _ = shift_size(self._n_keep, n_ctx, config.n_discard)
        n = n_shifted(n_tokens, n_keep, n_ctx, config.n_discard)
        if not self._model.params.context_shift or n > n_before - n_keep:
            raise ContextOverflowError(n_tokens + 1, n_ctx)
        self.n_dropped += sequence.shift(n_tokens, n_ctx, n_keep, config.n_discard)
        self._logits = None

    def _current_logits(self) -> NDArray[np.float32]:
        """The logits after the last token, computed if necessary."""
        self._require_open()
        if self._logits is not None:
            return self._logits
        sequence = self._sequence
        if not sequence.tokens:
            raise ConfigError("the session is empty; feed a prompt first")
        if not sequence.n_pending:  # rewound: the last token has to be recomputed
            last = sequence.tokens[-1]
            sequence.truncate(len(sequence.tokens) - 1)
            sequence.tokens.append(last)
        return self._compute()

    def _compute(self) -> NDArray[np.float32]:
        """Compute the pending tokens in chunks, and keep the logits of the last one."""
        sequence, runner = self._sequence, self._model.runner
        sequence.refit()
        if not sequence.n_past:
            sequence.attach()
        self._model.set_threads(self.config.n_threads)
        self._model.prefix.make_room(sequence.n_pending)
        while n_pending := sequence.n_pending:
            n = sequence.chunk(min(n_pending, self.n_batch))
            item = next_item(sequence, n, logits=int(n == n_pending))
            try:
                runner.forward([item])
            except BaseException:
                sequence.trim()
                raise
            sequence.advance(n)
        # A copy, since another session may use the runner before these logits are read.
        self._logits = np.array(runner.logits(0), dtype=np.float32)
        return self._logits

    def _require_open(self) -> None:
        if not self._release.alive:
            raise SessionClosedError("this session was closed; start a new one")
        if self._model.closed:
            raise SessionClosedError("the model of this session was closed; load it again")
