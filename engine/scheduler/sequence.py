"""One sequence of tokens and the cells that hold it, and what a runner is asked to compute of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Node, PrefixIndex
from engine.constraint.guide import Guide
from engine.errors import ConfigError, ContextOverflowError, OutOfMemoryError
from engine.types import FinishReason, Request, Timings, Token


class BatchItem(NamedTuple):
    """The next tokens of one sequence, to be computed in one batch with others.

    cells: the sequence's whole table, cells[p] holds position p; it covers the new tokens as well, so
        len(cells) == n_past + len(tokens). Several sequences may share the cells of a common beginning.
    logits: of how many of the last tokens logits are wanted; -1: of the first token only.
    long: whether the sequence, with all its tokens, is longer than `HParams.n_short`.
    second: where the second of two sentences begins, which some encoders tell apart; 0: there is one.
    """

    tokens: list[int]
    cells: array[int]
    n_past: int
    logits: int
    long: bool = False
    second: int = 0


class Runner(Protocol):
    """Computes batches. Only the thread that owns the scheduler calls it."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def n_short(self) -> int:
        """See `HParams.n_short`."""

    @property
    def compute_ms(self) -> float:
        """What the last forward took."""

    def forward(self, rows: Sequence[BatchItem]) -> int:
        """Compute one batch; return its number of rows of logits: those asked for, in the order of tokens."""

    def logits(self, i: int) -> Any:
        """Row `i` of the last forward: float32 [n_vocab], valid until the next forward."""

    def clear(self, cells: Sequence[int]) -> None:
        """Forget what these cells hold, which nobody uses: it may be no numbers."""


class TokenSampler(Protocol):
    """`engine.sampling.sampler.Sampler`, or what takes its place in tests."""

    def sample(self, logits: Any, mask: Any = None) -> Token: ...


SamplerFactory = Callable[..., TokenSampler]


def compiled_sampler(*args: Any, **kwargs: Any) -> TokenSampler:
    """Make an `engine.sampling.sampler.Sampler`, imported late: the rest needs no compiled extension."""
    from engine.sampling.sampler import Sampler

    sampler: TokenSampler = Sampler(*args, **kwargs)
    return sampler


def make_room(pool: CellPool, prefix: PrefixIndex, n: int) -> None:
    """See that `n` cells are free, by forgetting prefixes that nobody uses.

    OutOfMemoryError if others hold too many.
    """
    if n > pool.n_free:
        prefix.evict(n - pool.n_free)
    if n > pool.n_free:
        raise OutOfMemoryError(
            f"{n} cells of the KV cache are needed and {pool.n_free} of {pool.n_cells} are free; "
            f"close other sessions of this model or raise kv_cells"
        )


class CachedSequence:
    """Tokens, of which the first `n_past` are computed, and the cells that hold those.

    The first `n_shared` cells belong to the prefix index (`node`, where they end, is locked), the others to
    this sequence alone. `index` None: it neither reads the index nor leaves anything in it.
    n_short: see `HParams.n_short`. long: how the cells were computed.
    """

    __slots__ = ("cells", "index", "long", "n_past", "n_shared", "n_short", "node", "pool", "tokens")

    def __init__(
        self, pool: CellPool, index: PrefixIndex | None, tokens: Sequence[int] = (), *, n_short: int = 0
    ) -> None:
        self.pool = pool
        self.index = index
        self.tokens = array("i", tokens)
        self.cells = array("i")
        self.n_past = 0
        self.n_shared = 0
        self.node: Node | None = None
        self.n_short = n_short
        self.long = False

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed."""
        return len(self.tokens) - self.n_past

    @property
    def wants_long(self) -> bool:
        """Whether it is to be computed as a long sequence, with the tokens that it has now."""
        return 0 < self.n_short < len(self.tokens)

    def refit(self) -> None:
        """Drop the cells if the sequence has become long, or short again: all is to be computed anew."""
        if self.n_past and self.long != self.wants_long:
            self.release()

    def attach(self) -> int:
        """Start with the longest cached prefix. The last token is never part of it: its logits are wanted."""
        self.long = self.wants_long
        if self.index is not None:
            match = self.index.acquire(self.tokens, len(self.tokens) - 1, self.long)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n
        return self.n_past

    def grow(self, n: int) -> None:
        """Cells for the next `n` tokens."""
        cells = self.cells
        after = cells[-1] if cells else -1
        if n == 1:
            cells.append(self.pool.alloc_one(after))
        else:
            cells.extend(self.pool.alloc(n, after))

    def trim(self) -> None:
        """Give back the cells whose tokens were not computed."""
        if len(self.cells) > self.n_past:
            self.pool.free(self.cells[self.n_past :])
            del self.cells[self.n_past :]

    def publish(self) -> None:
        """Let others use what is computed."""
        if self.index is not None and self.n_past > self.n_shared:
            self.node = self.index.insert(
                self.tokens, self.cells, self.n_past, self.node, self.n_shared, self.long
            )
            self.n_shared = self.n_past

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens."""
        self.n_past = min(self.n_past, n)
        self.pool.free(self.cells[max(self.n_past, self.n_shared) :])
        del self.cells[self.n_past :], self.tokens[n:]
        if n < self.n_shared and self.index is not None and self.node is not None:
            # Hold just the part that is left: what follows would else be inserted behind the old end.
            match = self.index.acquire(self.tokens, None, self.long)
            self.index.release(self.node)
            self.node, self.cells = match.node, match.cells
            self.n_past = self.n_shared = match.n

    def release(self, *, keep: bool = True) -> None:
        """Give all cells back; what is computed stays in the index, unless not to `keep` it."""
        self.trim()
        if keep:
            self.publish()
        self.pool.free(self.cells[self.n_shared :])
        if self.node is not None and self.index is not None:
            if keep:
                self.index.release(self.node)
            else:
                self.index.forget(self.node)
        self.node, self.cells = None, array("i")
        self.n_past = self.n_shared = 0


class Session(CachedSequence):
    """One request on its way through the scheduler. Progress is told by counting tokens."""

    __slots__ = (
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
        "queue",
        "request",
        "sampler",
        "seq",
        "started_at",
        "stop_ids",
        "submitted_at",
    )

    def __init__(
        self,
        request: Request,
        pool: CellPool,
        index: PrefixIndex | None,
        *,
        seq: int,
        n_ctx: int,
        max_batch_tokens: int,
        eog_ids: frozenset[int],
        now: float,
        n_short: int = 0,
    ) -> None:
        super().__init__(pool, index, request.prompt, n_short=n_short)
        self.tokens.extend(request.generated)
        params = request.params
        self.request = request
        self.id = request.id
        self.seq = seq  # order of arrival, which is the order of precedence
        self.n_prompt = len(request.prompt)
        self.n_end = n_ctx if params.max_tokens is None else min(n_ctx, self.n_prompt + params.max_tokens)
        self.min_end = self.n_prompt + params.min_tokens  # no stop id ends it before
        self.n_batch = min(request.n_batch, max_batch_tokens)
        self.stop_ids = frozenset() if params.ignore_eos else eog_ids
        if params.stop_token_ids:
            self.stop_ids = self.stop_ids.union(params.stop_token_ids)
        self.queue: list[Session] | None = None  # the list of the scheduler that holds it
        self.sampler: TokenSampler | None = None
        self.guide: Guide | None = None
        self.compiling: Future[Any] | None = None  # its constraint, until there is a guide
        self.leader: Session | None = None  # see Admission.may_start
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
        return max(self.n_prompt, self.n_short + 1) if self.long else self.n_prompt

    @property
    def is_guided(self) -> bool:
        return self.request.constraint is not None or self.request.thinking is not None

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
            mu=request.mu,
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


def check(request: Request, n_vocab: int, n_ctx: int) -> None:
    """ConfigError or ContextOverflowError for a request that can never run."""
    if not request.prompt:
        raise ConfigError("the prompt is empty; feed at least one token")
    if request.n_batch < 1:
        raise ConfigError(f"n_batch is {request.n_batch}; it must be at least 1")
    for ids in (request.prompt, request.generated):
        if ids and not (min(ids) >= 0 and max(ids) < n_vocab):
            bad = next(i for i in ids if not 0 <= i < n_vocab)
            raise ConfigError(f"token id {bad} is outside of the vocabulary of {n_vocab} tokens")
    if len(request.prompt) >= n_ctx:
        raise ContextOverflowError(len(request.prompt), n_ctx)
