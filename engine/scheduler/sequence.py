"""One request on its way through the scheduler."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Protocol

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.config import (
    MAX_DRAFT,
    MAX_PRIORITY,
    MAX_WEIGHT,
    SchedulerConfig,
    adapter_scales,
    shift_size,
)
from engine.constraint.guide import OutputGuide
from engine.errors import ConfigError, ContextOverflowError
from engine.types import FinishReason, InferenceParameters, Request, Timings, Token


class TokenSampler(Protocol):
    """`engine.sampling.sampler.Sampler`, or a fake in tests."""

    def sample(self, logits: Any, mask: Any = None) -> Token: ...


SamplerFactory = Callable[..., TokenSampler]
BreakerSequences = Callable[[Sequence[str]], Iterable[Sequence[int]]]  # `DryBreakers.sequences`


def compiled_sampler(
    params: InferenceParameters, *args: Any, breakers: BreakerSequences | None = None, **kwargs: Any
) -> TokenSampler:
    """An `engine.sampling.sampler.Sampler`. breakers: the model's; None: DRY has none.

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
    """One request: its tokens, its limits, and its progress.

    With `shifts` it continues when its context is full: tokens after the first `n_keep` are dropped, and the
    others are recomputed at their new positions, which is right for every architecture. n_dropped: the number
    of dropped tokens.
    """

    __slots__ = (
        "arrival",
        "cached_n",
        "charged",
        "compiling",
        "draft_accepted",
        "draft_credit",
        "draft_n",
        "drafts",
        "first_token_at",
        "guide",
        "id",
        "leader",
        "leader_n",
        "n_batch",
        "n_ctx",
        "n_dropped",
        "n_end",
        "n_expected",
        "n_prompt",
        "precedence",
        "request",
        "sampler",
        "shifts",
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

        arrival: place in the order of arrival. now: in seconds of time.monotonic. compiling: gives the guide
        of a request with a constraint or a reasoning block.
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
        self.boundaries = request.boundaries
        params = request.params
        self.request = request
        self.id = request.id
        self.arrival = arrival
        self.precedence = (request.priority, arrival)  # of running sequences: the last is preempted first
        self.charged = self.n_expected = 0  # see `FairShare`; charged: 0 until it is admitted
        self.n_prompt = len(request.prompt)
        self.n_ctx, self.shifts = config.n_ctx, config.context_shift
        self.n_dropped = 0
        self.n_end = self._end()
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
        # A recurrent state cannot go back behind a wrong draft.
        self.drafts = request.draft_max > 0 and pool.states is None
        self.draft_n = self.draft_accepted = 0
        self.draft_credit: float | None = None  # see `DraftCredit`
        self.cached_n: int | None = None
        self.submitted_at = now
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.refit()

    @property
    def n_chunked(self) -> int:
        """Tokens that were, and if necessary are again, computed in chunks; the others one at a time.

        Kernels round differently for more rows, and a resumed session must continue with the same text.
        """
        n = self.n_prompt
        if self.n_dropped:  # all that the last shift left
            n = self.n_ctx - shift_size(self.request.n_keep, self.n_ctx, self.request.n_discard)[1]
        return max(n, self.original_context_length + 1) if self.uses_long_rope else n

    def refit(self) -> None:
        """Make room in a full context, so that the next token can be computed."""
        request = self.request
        if self.shifts and len(self.tokens) >= self.n_ctx:
            self.n_dropped += self.shift(len(self.tokens), self.n_ctx, request.n_keep, request.n_discard)
            self.n_end = self._end()
        super().refit()

    def _end(self) -> int:
        """Maximum number of tokens in its context."""
        limit = self.request.params.max_tokens
        return self.n_ctx if limit is None else min(self.n_ctx, self.n_prompt + limit - self.n_dropped)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Whether the last token ends it, as a token or because of its position."""
        params, n = self.request.params, self.n_generated
        if self.tokens[-1] in self.stop_ids and n > params.min_tokens:
            return FinishReason.STOP
        if len(self.tokens) < self.n_end:
            return None
        goes_on = self.shifts and (params.max_tokens is None or n < params.max_tokens)
        return None if goes_on else FinishReason.LENGTH

    @property
    def draft_limit(self) -> int:
        """Maximum number of tokens to draft: none that could not be kept or that a longer text would
        recompute.
        """
        n, end = len(self.tokens), self.n_end - 1
        if self.original_context_length and not self.uses_long_rope:
            end = min(end, self.original_context_length)
        return min(self.request.draft_max, end - n)

    def make_sampler(self, factory: SamplerFactory, n_vocab: int, eog_ids: frozenset[int]) -> TokenSampler:
        """A sampler that continues after the tokens so far."""
        request = self.request
        self.sampler = factory(
            request.params,
            n_vocab,
            eog_ids,
            history=array("i", [*request.prompt, *request.generated]),  # also those that gave way
            n_generated=self.n_generated,
            state=request.sampler_state,
        )
        return self.sampler

    @property
    def n_generated(self) -> int:
        return len(self.tokens) + self.n_dropped - self.n_prompt

    def timings(self, now: float) -> Timings:
        """Its timings until `now`, in seconds of time.monotonic."""
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
            draft_n=self.draft_n,
            draft_accepted=self.draft_accepted,
            n_batch=self.n_batch,
        )


def check_request(request: Request, n_vocab: int, n_ctx: int, n_adapters: int = 0) -> None:
    """Raises ConfigError or ContextOverflowError for a request that can never run."""
    if not request.prompt:
        raise ConfigError("the prompt is empty; feed at least one token")
    if request.n_batch < 1:
        raise ConfigError(f"n_batch is {request.n_batch}; it must be at least 1")
    if abs(request.priority) > MAX_PRIORITY:
        raise ConfigError(f"priority is {request.priority}; it must be {-MAX_PRIORITY} to {MAX_PRIORITY}")
    if not 1 <= request.weight <= MAX_WEIGHT:
        raise ConfigError(f"weight is {request.weight}; it must be 1 to {MAX_WEIGHT}")
    if not 0 <= request.draft_max <= MAX_DRAFT:
        raise ConfigError(f"draft_max is {request.draft_max}; it must be 0 to {MAX_DRAFT}")
    for ids in (request.prompt, request.generated):
        if ids and not (min(ids) >= 0 and max(ids) < n_vocab):
            bad = next(i for i in ids if not 0 <= i < n_vocab)
            raise ConfigError(f"token id {bad} is outside of the vocabulary of {n_vocab} tokens")
    adapter_scales(request.lora, n_adapters)
    if len(request.prompt) >= n_ctx:
        raise ContextOverflowError(len(request.prompt), n_ctx)
