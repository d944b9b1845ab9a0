"""Continuous batching: in every step, which tokens of which sessions are computed together.

Decode rows of all running sessions come first, then prompts in order of arrival, at most one chunk each, in
what is left of the batch. So a long prompt delays the running streams by one chunk per step at most. Plain
policy: nothing here knows ggml, and all of it runs in the one thread that owns the runner.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from heapq import heapify, heappop, heappush
from time import monotonic

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixIndex
from engine.config import SchedulerConfig
from engine.constraint.guide import Guides, Mask
from engine.errors import ConfigError, DeviceError, GgmlError, OutOfMemoryError
from engine.scheduler.admission import Admission
from engine.scheduler.sequence import (
    BatchItem,
    CachedSequence,
    Runner,
    SamplerFactory,
    Session,
    check,
    compiled_sampler,
)
from engine.types import EngineStats, FinishReason, Request, RequestInfo, StepOutput, Token

__all__ = ["BatchItem", "Runner", "Scheduler"]


class Scheduler:
    """Runs requests on one model. `submit`, then `step` until `has_work` is false.

    prefix: the index to share with other users of the pool; a new one by default.
    sampler_factory: called like `engine.sampling.sampler.Sampler`. guides: for requests with a constraint or
    a reasoning block, which are refused without it.
    """

    def __init__(
        self,
        runner: Runner,
        pool: CellPool,
        config: SchedulerConfig,
        sampler_factory: SamplerFactory | None = None,
        *,
        prefix: PrefixIndex | None = None,
        guides: Guides | None = None,
    ) -> None:
        if not 1 <= config.parallel <= config.max_batch_tokens:
            raise ConfigError(
                f"parallel ({config.parallel}) must lie between 1 and max_batch_tokens "
                f"({config.max_batch_tokens}): every running session has a row in each batch"
            )
        if not 2 <= config.n_ctx <= pool.n_cells:
            raise ConfigError(
                f"a session of {config.n_ctx} tokens must fit the KV cache of {pool.n_cells} cells; "
                f"raise --kv-cells or lower --context-size"
            )
        self.config = config
        self.pool = pool
        self.prefix = prefix if prefix is not None else PrefixIndex(pool)
        self._runner = runner
        self._sampler_factory = sampler_factory or compiled_sampler
        self._guides = guides
        self._admission = Admission(pool, self.prefix, config.parallel)
        self._sessions: dict[str, Session] = {}
        self._preparing: list[Session] = []  # their constraints are being compiled
        self._masks: list[Mask | ConfigError | None] = []  # of the rows of logits; empty: none is guided
        self._deadlines: list[tuple[float, int, Session]] = []
        self._out: list[StepOutput] = []
        self._batch: list[Session] = []
        self._rows: list[BatchItem] = []
        self._n_submitted = 0
        self._counters = EngineStats(cells_total=pool.n_cells)

    # ** requests **

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ConfigError or ContextOverflowError if it can never run."""
        config = self.config
        if request.id in self._sessions:
            raise ConfigError(f"a request with the id {request.id!r} is running already")
        check(request, self._runner.n_vocab, config.n_ctx)
        if request.constraint is not None or request.thinking is not None:
            if self._guides is None:
                raise ConfigError("this scheduler takes no constraints and no reasoning blocks")
            self._guides.check(request.thinking)
        self._n_submitted += 1
        session = Session(
            request,
            self.pool,
            self.prefix if request.cache_prompt else None,
            seq=self._n_submitted,
            n_ctx=config.n_ctx,
            max_batch_tokens=config.max_batch_tokens,
            eog_ids=config.eog_ids,
            now=monotonic(),
            n_short=self._runner.n_short,
        )
        self._sessions[session.id] = session
        reason = session.finish_reason if request.generated else None
        if reason is not None:  # it was resumed after its last token
            self._finish(session, reason)
            return
        if request.deadline_ms is not None:
            heappush(self._deadlines, (request.deadline_ms, session.seq, session))
        if self._guides is not None and session.is_guided:
            self._admission.move(session, self._preparing)
            self._guides.prepare(session)
            self._start_prepared()
        else:
            self._admission.move(session, self._admission.waiting)

    def _start_prepared(self) -> None:
        """Queue sessions whose guide is ready, or end them: resumed after its last token, or without hope."""
        assert self._guides is not None
        for session, error in self._guides.ready(self._preparing):
            if error is not None:
                self._finish(session, FinishReason.ERROR, error=error, unmet=True)
            elif session.guide is not None and session.guide.must_stop and session.n_generated:
                self._finish(session, FinishReason.STOP)
            else:
                self._admission.move(session, self._admission.waiting)

    def cancel(self, request_id: str) -> bool:
        """End a request and free its cells at once. The next step tells its end. False: no such request."""
        session = self._sessions.get(request_id)
        if session is None:
            return False
        self._finish(session, FinishReason.CANCELLED)
        return True

    def pause(self, request_id: str) -> bool:
        """Stop computing a request, whose client is slow. It keeps its cells while others need none."""
        session = self._sessions.get(request_id)
        if session is None:
            return False
        self._admission.move(session, self._admission.parked)
        return True

    def resume(self, request_id: str) -> bool:
        """Go on with a paused request, before those that arrived after it."""
        session = self._sessions.get(request_id)
        if session is None:
            return False
        if session.queue is self._admission.parked:
            ready = session.compiling is None
            self._admission.move(session, self._admission.waiting if ready else self._preparing)
        return True

    def close(self) -> None:
        """Drop all requests without a word."""
        for session in list(self._sessions.values()):
            self._finish(session, FinishReason.CANCELLED)
        self._out = []
        if self._guides is not None:
            self._guides.close()

    # ** steps **

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        admission = self._admission
        if admission.running or admission.waiting or self._preparing or self._out:
            return True
        deadline = self.next_deadline_ms
        return deadline is not None and deadline <= monotonic() * 1e3

    @property
    def next_deadline_ms(self) -> float | None:
        """When `has_work` turns true by itself: the first deadline, in ms of time.monotonic."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].queue is None:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def step(self) -> list[StepOutput]:
        """Compute one batch; return what is new for each session."""
        started = monotonic()
        self._schedule(started)
        if self._rows:
            if self._run():
                self._postprocess(monotonic())
        elif self._preparing and not self._out and self._guides is not None:  # nothing else to do
            self._guides.wait(self._preparing)
        self._counters.steps += 1
        self._counters.step_ms += (monotonic() - started) * 1e3
        out, self._out = self._out, []
        return out

    def _schedule(self, now: float) -> None:
        """Fill the batch: sessions and, beside them, their rows."""
        if self._deadlines:
            self._expire(now)
        if self._preparing:
            self._start_prepared()
        admission, pool = self._admission, self.pool
        batch, rows = self._batch, self._rows
        batch.clear()
        rows.clear()
        if admission.waiting:
            admission.admit()
        running = admission.running
        while pool.n_free < len(running):
            starved = admission.make_room()
            if starved is not None:
                self._finish(starved, FinishReason.ERROR, error=self._starved_text())
        prefill: list[Session] = []
        for session in running:
            session.refit()
            tokens, n_past = session.tokens, session.n_past
            if len(tokens) - n_past == 1:
                session.grow(1)
                batch.append(session)
                rows.append(BatchItem([tokens[n_past]], session.cells, n_past, 1, session.long))
            else:
                prefill.append(session)
        budget = self.config.max_batch_tokens - len(rows)
        for session in prefill:
            if not budget:
                break
            budget -= self._schedule_chunk(session, budget, now)
        for session in batch:
            if session.started_at is None:
                session.started_at = now

    def _schedule_chunk(self, session: Session, budget: int, now: float) -> int:
        """Add the next chunk of a prompt; return its size. A chunk shrinks to the cells there are."""
        if not session.n_past:
            if not self._admission.may_start(session):
                return 0
            cached = session.attach()
            if session.cached_n is None:
                session.cached_n = min(cached, session.n_prompt - 1)
                self._counters.cached_tokens += session.cached_n
        pool, n_past = self.pool, session.n_past
        n = min(session.n_pending, session.n_batch, budget, max(session.n_chunked - n_past, 1))
        if n > pool.n_free:
            self.prefix.evict(n - pool.n_free)
            n = min(n, pool.n_free)
            if not n:
                return 0
        session.grow(n)
        chunk = session.tokens[n_past : n_past + n].tolist()
        self._batch.append(session)
        self._rows.append(BatchItem(chunk, session.cells, n_past, int(n == session.n_pending), session.long))
        return n

    def _run(self) -> bool:
        """Compute the batch. If that fails, its sessions end, and what they computed is not trusted.

        Too little memory ends only the session with the most rows: the others are computed without it. A
        device that is lost is for the caller: nothing runs without it, and everything can be resumed.
        """
        rows, guides = self._rows, self._guides
        try:
            if guides is None:
                n_logits = self._runner.forward(rows)
            else:
                guides.begin([s.guide for s, row in zip(self._batch, rows, strict=True) if row.logits])
                try:
                    n_logits = self._runner.forward(rows)
                finally:
                    self._masks = guides.end()
            expected = sum(row.logits for row in rows)
            if n_logits != expected:
                raise GgmlError(f"the runner gave {n_logits} rows of logits instead of {expected}")
        except OutOfMemoryError as error:
            i = max(range(len(rows)), key=lambda i: len(rows[i].tokens))
            self._finish(self._batch.pop(i), FinishReason.ERROR, error=str(error), out_of_memory=True)
            for session in self._batch:
                session.trim()
            return False
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, DeviceError):
                for session in self._batch:
                    self._finish(session, FinishReason.ERROR, error=str(error) or repr(error))
                return False
            for session in self._batch:  # an interrupt, too: the batch can be computed again
                session.trim()
            raise
        self._counters.compute_ms += self._runner.compute_ms
        return True

    def _postprocess(self, now: float) -> None:
        """Count what was computed, share prompts, and sample."""
        counters = self._counters
        i = 0
        for session, row in zip(self._batch, self._rows, strict=True):
            n_past = row.n_past + len(row.tokens)
            session.n_past = n_past
            if row.n_past < session.n_prompt:
                counters.prompt_tokens += min(n_past, session.n_prompt) - row.n_past
                session.publish()
            if row.logits:
                self._sample(session, i, now)
                i += 1
            elif session.first_token_at is None:
                processed, timings = min(n_past, session.n_prompt), session.timings(now)
                self._out.append(StepOutput(id=session.id, processed=processed, timings=timings))

    def _sample(self, session: Session, i: int, now: float) -> None:
        """Choose the next token of a session from row `i` of the logits."""
        if len(session.tokens) >= session.n_end:  # max_tokens is 0: it only fills the prefix cache
            self._finish(session, FinishReason.LENGTH)
            return
        guide = session.guide
        mask = self._masks[i] if guide is not None else None
        try:
            if isinstance(mask, ConfigError):
                raise mask
            sampler = session.sampler or session.make_sampler(
                self._sampler_factory, self._runner.n_vocab, self.config.eog_ids
            )
            token = sampler.sample(self._runner.logits(i), mask)
        except Exception as error:
            if guide is not None and isinstance(error, ConfigError):
                self._end_guided(session, error)
            else:
                self._finish(session, FinishReason.ERROR, error=str(error) or repr(error))
            return
        session.tokens.append(token.id)
        self._counters.predicted_tokens += 1
        timings = None
        if session.first_token_at is None:
            session.first_token_at = now
            timings = session.timings(now)
        reason = session.finish_reason
        if guide is not None and reason is not FinishReason.STOP:
            try:
                guide.commit(token.id)
            except ConfigError as error:
                self._end_guided(session, error)
                return
            if guide.must_stop:
                reason = FinishReason.STOP
        if reason is None:
            self._out.append(StepOutput(id=session.id, tokens=[token], timings=timings))
        else:
            self._finish(session, reason, [token])

    def _end_guided(self, session: Session, error: ConfigError) -> None:
        """Nothing may come next. If the constraint is met so far that is an end, though it was not wanted."""
        assert session.guide is not None
        if session.guide.may_stop:
            self._finish(session, FinishReason.STOP)
        else:
            self._finish(session, FinishReason.ERROR, error=str(error), unmet=True)

    def _finish(
        self,
        session: Session,
        reason: FinishReason,
        tokens: list[Token] | None = None,
        error: str | None = None,
        out_of_memory: bool = False,
        unmet: bool = False,
    ) -> None:
        """End a session: its cells go to the prefix cache, or away if they may be wrong."""
        timings = session.timings(monotonic())
        failed = reason is FinishReason.ERROR and not unmet
        cells = session.cells[:] if failed else ()
        session.release(keep=not failed)
        if cells:
            self._runner.clear([cell for cell in cells if self.pool.is_free(cell)])
        self._admission.move(session, None)
        del self._sessions[session.id]
        if len(self._deadlines) > 2 * len(self._sessions) + 64:  # most of them are of finished sessions
            self._deadlines = [entry for entry in self._deadlines if entry[2].queue is not None]
            heapify(self._deadlines)
        self._out.append(
            StepOutput(
                id=session.id,
                tokens=tokens or [],
                finish=reason,
                error=error,
                out_of_memory=out_of_memory,
                unmet=unmet,
                timings=timings,
            )
        )

    def _expire(self, now: float) -> None:
        while (deadline := self.next_deadline_ms) is not None and deadline <= now * 1e3:
            self._finish(heappop(self._deadlines)[2], FinishReason.TIMEOUT)

    def _starved_text(self) -> str:
        return (
            f"the KV cache of {self.pool.n_cells} cells is held by sessions outside of the scheduler; "
            f"close some of them"
        )

    # ** observation **

    def stats(self) -> EngineStats:
        """Gauges of this moment and counters since the start."""
        counters, admission = self._counters, self._admission
        counters.running = len(admission.running) + len(admission.parked)
        counters.waiting = len(admission.waiting) + len(self._preparing)
        counters.cells_cached = self.prefix.n_evictable
        counters.cells_used = self.pool.n_cells - self.pool.n_free - self.prefix.n_evictable
        counters.preemptions = admission.n_preempted
        counters.evicted_cells = self.prefix.n_evicted
        return copy(counters)

    def requests(self) -> list[RequestInfo]:
        """What runs and waits, in order of arrival."""
        now = monotonic()
        return [
            RequestInfo(
                id=session.id,
                state=self._state(session),
                n_prompt=session.n_prompt,
                n_generated=session.n_generated,
                age_ms=(now - session.submitted_at) * 1e3,
            )
            for session in self._sessions.values()
        ]

    def check(self, others: Iterable[CachedSequence] = ()) -> None:
        """Raise AssertionError if a cell has not exactly one owner, or a count is wrong.

        others: sequences outside of this scheduler that use the same pool.
        """
        self._admission.check(others)

    def _state(self, session: Session) -> str:
        if session.queue is self._admission.parked:
            return "paused"
        if session.queue is self._admission.waiting or session.queue is self._preparing:
            return "queued"
        return "prefill" if session.n_pending > 1 else "decode"
