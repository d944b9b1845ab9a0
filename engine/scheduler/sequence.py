"""One request on its way through the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Protocol

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.config import SchedulerConfig, adapter_scales
from engine.constraint.guide import OutputGuide
from engine.errors import ConfigError, ContextOverflowError
from engine.types import FinishReason, InferenceParameters, Request, Timings, Token


class TokenSampler(Protocol):
    """`engine.sampling.sampler.Sampler`, or what takes its place in tests."""

    def sample(self, logits: Any, mask: Any = None) -> Token: ...


SamplerFactory = Callable[..., TokenSampler]
BreakerSequences = Callable[[Sequence[str]], Iterable[Sequence[int]]]  # `DryBreakers.sequences`


def compiled_sampler(
    params: InferenceParameters, *args: Any, breakers: BreakerSequences | None = None, **kwargs: Any
) -> TokenSampler:
    """Make an `engine.sampling.sampler.Sampler`. breakers: the model's; None: DRY has none.

    Imported here, so that the scheduler and its tests need no compiled extension.
    """
    from engine.sampling.sampler import Sampler

    sampler = Sampler(params, *args, **kwargs)
    if breakers is not None and params.dry_multiplier:
        sampler.break_repetitions(breakers(params.dry_sequence_breakers))
    return sampler


class SequenceState(Enum):
    """What a sequence is doing. Those in any state but FINISHED may hold cells."""

    COMPILING = auto()  # its constraint is being compiled
    WAITING = auto()  # to be admitted
    RUNNING = auto()  # scheduled in every step
    PAUSED = auto()  # by its client
    FINISHED = auto()


class ScheduledSequence(CachedSequence):
    """One request: its tokens, its limits, and how far it has come."""

    __slots__ = (
        "arrival",
        "cached_n",
        "compiling",
        "first_token_at",
        "guide",
        "id",
        "leader",
        "leader_n",
        "min_end",
        "n_batch",
        "n_end",
        "n_prompt",
        "request",
        "sampler",
        "started_at",
        "state",
        "stop_ids",
        "submitted_at",
    )

    def __init__(
        self,
        request: Request,
        pool: CellPool,
        prefix: PrefixCache | None,
        config: SchedulerConfig,
        *,
        arrival: int,
        now: float,
        original_context_length: int = 0,
        compiling: Future[OutputGuide] | None = None,
    ) -> None:
        """Eight parameters: what the scheduler knows and a sequence cannot derive.

        arrival: place in the order of arrival, which is the order of precedence. now: in seconds of
        time.monotonic. compiling: gives the guide of a request with a constraint or a reasoning block.
        """
        super().__init__(
            pool,
            prefix,
            request.prompt,
            original_context_length=original_context_length,
            adapters=adapter_scales(request.lora, config.n_adapters),
            salt=request.cache_salt,
        )
        self.tokens.extend(request.generated)
        params, n_ctx = request.params, config.n_ctx
        self.request = request
        self.id = request.id
        self.arrival = arrival
        self.n_prompt = len(request.prompt)
        self.n_end = n_ctx if params.max_tokens is None else min(n_ctx, self.n_prompt + params.max_tokens)
        self.min_end = self.n_prompt + params.min_tokens  # no stop id ends it before
        self.n_batch = min(request.n_batch, config.max_batch_tokens)
        self.stop_ids = frozenset() if params.ignore_eos else config.eog_ids
        if params.stop_token_ids:
            self.stop_ids = self.stop_ids.union(params.stop_token_ids)
        self.state = SequenceState.WAITING if compiling is None else SequenceState.COMPILING
        self.sampler: TokenSampler | None = None
        self.guide: OutputGuide | None = None
        self.compiling = compiling  # until there is a guide
        self.leader: ScheduledSequence | None = None  # see Admission.may_start
        self.leader_n = 0
        self.cached_n: int | None = None
        self.submitted_at = now
        self.started_at: float | None = None
        self.first_token_at: float | None = None

    @property
    def n_chunked(self) -> int:
        """Tokens that were, and if need be are again, computed in chunks; the others one at a time.

        Kernels round differently for more rows, and a resumed session shall go on to the same text.
        """
        return max(self.n_prompt, self.original_context_length + 1) if self.uses_long_rope else self.n_prompt

    @property
    def finish_reason(self) -> FinishReason | None:
        """Whether the last token ends it, by itself or by its place."""
        n = len(self.tokens)
        if self.tokens[-1] in self.stop_ids and n > self.min_end:
            return FinishReason.STOP
        return FinishReason.LENGTH if n >= self.n_end else None

    def make_sampler(self, factory: SamplerFactory, n_vocab: int, eog_ids: frozenset[int]) -> TokenSampler:
        """The one that goes on after the tokens so far."""
        request = self.request
        self.sampler = factory(
            request.params,
            n_vocab,
            eog_ids,
            history=self.tokens[:],
            n_generated=self.n_generated,
            state=request.sampler_state,
        )
        return self.sampler

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    def timings(self, now: float) -> Timings:
        """What it cost until `now`, in seconds of time.monotonic."""
        started = now if self.started_at is None else self.started_at
        first = now if self.first_token_at is None else self.first_token_at
        cached_n = self.cached_n or 0
        n_prompt = self.n_prompt if self.first_token_at is not None else min(self.n_past, self.n_prompt)
        return Timings(
            queue_ms=(started - self.submitted_at) * 1e3,
            prompt_n=max(0, n_prompt - cached_n),
            cached_n=cached_n,
            prompt_ms=(first - started) * 1e3,
            predicted_n=self.n_generated,
            predicted_ms=(now - first) * 1e3,
            n_batch=self.n_batch,
        )


def check_request(request: Request, n_vocab: int, n_ctx: int, n_adapters: int = 0) -> None:
    """ConfigError or ContextOverflowError for a request that can never run."""
    if not request.prompt:
        raise ConfigError("the prompt is empty; feed at least one token")
    if request.n_batch < 1:
        raise ConfigError(f"n_batch is {request.n_batch}; it must be at least 1")
    for ids in (request.prompt, request.generated):
        if ids and not (min(ids) >= 0 and max(ids) < n_vocab):
            bad = next(i for i in ids if not 0 <= i < n_vocab)
            raise ConfigError(f"token id {bad} is outside of the vocabulary of {n_vocab} tokens")
    adapter_scales(request.lora, n_adapters)
    if len(request.prompt) >= n_ctx:
        raise ContextOverflowError(len(request.prompt), n_ctx)
