"""Continuous batching: requests in, batches through the runner, tokens out.

Policy only: nothing here knows ggml, and all of it runs in the one thread that owns the runner. Who runs is
decided by `admission`, what is computed by `batch`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from copy import copy
from time import monotonic

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.cache.state_slots import NO_SLOT
from engine.config import SchedulerConfig
from engine.constraint.guide import OutputGuides
from engine.errors import ConfigError, DeviceError, GgmlError, OutOfMemoryError
from engine.scheduler.admission import Admission
from engine.scheduler.batch import Batch, BatchBuilder, BatchItem, BatchRunner
from engine.scheduler.queues import SequenceQueues
from engine.scheduler.sequence import (
    SamplerFactory,
    ScheduledSequence,
    SequenceState,
    check_request,
    compiled_sampler,
)
from engine.scheduler.token_choice import TokenChooser
from engine.types import EngineStats, FinishReason, Request, StepOutput, Token

log = logging.getLogger("engine")

COMPILE_S = 20.0  # longer than any constraint takes that passed the checks
_POLL_S = 0.01


class Scheduler:
    """Runs requests on one model. `submit`, then `step` until `has_work` is false.

    prefix: the prefix cache to share with other users of the pool; a new one by default.
    sampler_factory: called like `engine.sampling.sampler.Sampler`. guides: for requests with a constraint or
    a reasoning block, which are refused without it.
    """

    def __init__(
        self,
        runner: BatchRunner,
        pool: CellPool,
        config: SchedulerConfig,
        sampler_factory: SamplerFactory | None = None,
        *,
        prefix: PrefixCache | None = None,
        guides: OutputGuides | None = None,
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
        self.prefix = prefix if prefix is not None else PrefixCache(pool)
        self.queues = SequenceQueues()
        self._runner = runner
        self._chooser = TokenChooser(runner, sampler_factory or compiled_sampler, guides, config.eog_ids)
        self._guides = guides
        self._admission = Admission(self.queues, pool, self.prefix, config.parallel)
        self._builder = BatchBuilder(self._admission, config.max_batch_tokens)
        self.drafting = self._builder.drafting
        self._out: list[StepOutput] = []
        self._n_submitted = 0
        self.n_rows = 0  # of the batch that is computed, or was last
        self._counters = EngineStats(cells_total=pool.n_cells)

    # ** requests **

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ConfigError or ContextOverflowError if it can never run."""
        if request.id in self.queues:
            raise ConfigError(f"a request with the id {request.id!r} is running already")
        check_request(request, self._runner.n_vocab, self.config.n_ctx, self.config.n_adapters)
        self.drafting.check(request)
        compiling = None
        if request.constraint is not None or request.thinking is not None:
            if self._guides is None:
                raise ConfigError("this scheduler does not support constraints or reasoning blocks")
            compiling = self._guides.compile(request.constraint, request.thinking, request.generated)
        self._n_submitted += 1
        sequence = ScheduledSequence(
            request,
            self.pool,
            self.prefix if request.cache_prompt else None,
            self.config,
            arrival=self._n_submitted,
            now=monotonic(),
            original_context_length=self._runner.original_context_length,
            compiling=compiling,
        )
        self.queues.add(sequence)
        reason = sequence.finish_reason if request.generated else None
        if reason is not None:  # it was resumed after its last token
            self._finish(sequence, reason)
        elif compiling is not None:
            self._take_guide(sequence, monotonic())

    def cancel(self, request_id: str) -> bool:
        """End a request and free its cells at once; the next step reports it. False: no such request."""
        sequence = self.queues.get(request_id)
        if sequence is None:
            return False
        self._finish(sequence, FinishReason.CANCELLED)
        return True

    def pause(self, request_id: str) -> bool:
        """Stop computing a request, whose client is slow. It keeps its cells while others need none."""
        sequence = self.queues.get(request_id)
        if sequence is None:
            return False
        self.queues.move(sequence, SequenceState.PAUSED)
        if sequence.slot != NO_SLOT and sequence.prefix is not None:
            sequence.release()  # its state becomes a checkpoint, from which it goes on unless others need it
        return True

    def resume(self, request_id: str) -> bool:
        """Continue a paused request, before those that arrived after it."""
        sequence = self.queues.get(request_id)
        if sequence is None:
            return False
        if sequence.state is SequenceState.PAUSED:
            ready = sequence.compiling is None
            self.queues.move(sequence, SequenceState.WAITING if ready else SequenceState.COMPILING)
        return True

    def close(self) -> None:
        """Drop all requests without reporting them."""
        for sequence in self.queues:
            self._retire(sequence)
        self._out = []
        if self._guides is not None:
            self._guides.close()

    # ** steps **

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        queues = self.queues
        if queues.running or queues.waiting or queues.compiling or self._out:
            return True
        deadline = queues.next_deadline_ms
        return deadline is not None and deadline <= monotonic() * 1e3

    @property
    def next_deadline_ms(self) -> float | None:
        """When `has_work` turns true by itself: the first deadline, in ms of time.monotonic."""
        return self.queues.next_deadline_ms

    def step(self) -> list[StepOutput]:
        """Compute one batch; return what is new of each sequence."""
        started = monotonic()
        batch = self._schedule(started)
        if batch:
            if self._run(batch):
                self._postprocess(batch, monotonic())
        elif self.queues.compiling and not self._out:  # nothing else to do
            futures = [s.compiling for s in self.queues.compiling if s.compiling is not None]
            wait(futures, _POLL_S, FIRST_COMPLETED)
        self._counters.steps += 1
        self._counters.step_ms += (monotonic() - started) * 1e3
        out, self._out = self._out, []
        return out

    def _schedule(self, now: float) -> Batch:
        """Let sequences start and end by time, and build the batch of those that run."""
        queues, pool = self.queues, self.pool
        for sequence in queues.expired(now * 1e3):
            self._finish(sequence, FinishReason.TIMEOUT)
        for sequence in list(queues.compiling):
            self._take_guide(sequence, now)
        if queues.waiting:
            self._admission.admit()
        while pool.n_ready < len(queues.running):
            starved = self._admission.make_room()
            if starved is not None:
                self._fail(
                    starved,
                    f"the KV cache of {pool.n_cells} cells is held by sessions outside of the scheduler; "
                    "close some of them",
                )
        while (starved := self._admission.without_slot()) is not None:
            self._fail(
                starved,
                "all slots for recurrent states are held by sessions outside of the scheduler; close some "
                "of them or raise --checkpoints",
            )
        batch = self._builder.build(queues.running)
        self._counters.cached_tokens += batch.n_cached
        for sequence in batch.sequences:
            if sequence.started_at is None:
                sequence.started_at = now
        return batch

    def _take_guide(self, sequence: ScheduledSequence, now: float) -> None:
        """Queue a sequence whose guide is ready, or end one that will get none or has had its last token."""
        compiling = sequence.compiling
        assert compiling is not None
        if not compiling.done():
            if now - sequence.submitted_at >= COMPILE_S:
                error = f"the constraint on the output takes longer than {COMPILE_S:g} s to compile"
                self._finish(sequence, FinishReason.ERROR, error=error, unmet=True)
            return
        sequence.compiling = None
        try:
            guide = compiling.result()
            sequence.guide = guide
            stopped = bool(sequence.n_generated) and guide.must_stop
        except Exception as failure:
            error = str(failure) or repr(failure)
            self._finish(sequence, FinishReason.ERROR, error=error, unmet=True)
            return
        if stopped:
            self._finish(sequence, FinishReason.STOP)
        else:
            self.queues.move(sequence, SequenceState.WAITING)

    def _run(self, batch: Batch) -> bool:
        """Compute the batch. If that fails, its sequences end, and what they computed is not trusted.

        Too little memory ends drafting, or else only the sequence with the most rows: the others are computed
        without it. A device that is lost is raised to the caller: nothing runs without it, and everything
        can be resumed.
        """
        self.n_rows = batch.n_rows
        started = monotonic()
        try:
            n_logits = self._chooser.forward(batch)
            if n_logits != batch.n_logits:
                raise GgmlError(f"the runner gave {n_logits} rows of logits instead of {batch.n_logits}")
        except OutOfMemoryError as error:
            if batch.n_draft:
                log.warning("speculative decoding is disabled: %s", error)
                self.drafting.enabled = False
            else:
                self._fail(batch.pop_largest(), str(error), out_of_memory=True)
            for sequence in batch.sequences:
                sequence.trim()
            return False
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, DeviceError):
                for sequence in batch.sequences:
                    self._fail(sequence, str(error) or repr(error))
                return False
            for sequence in batch.sequences:  # an interrupt, too: the batch can be computed again
                sequence.trim()
            raise
        compute_ms = self._runner.compute_ms
        self._counters.compute_ms += compute_ms
        self._builder.measured(batch, compute_ms, (monotonic() - started) * 1e3)
        return True

    def _postprocess(self, batch: Batch, now: float) -> None:
        """Count what was computed, share prompts, and sample."""
        place = row = 0
        for sequence, item in zip(batch.sequences, batch.items, strict=True):
            n_past = item.n_past + len(item.tokens) - len(item.draft)
            sequence.reach(n_past)
            if item.n_past < sequence.n_prompt:
                self._counters.prompt_tokens += min(n_past, sequence.n_prompt) - item.n_past
                sequence.publish()
            self.queues.fair.charge(sequence)
            if item.logits:
                self._choose(sequence, item, place, row, now)
                place += 1
                row += item.logits
            elif sequence.first_token_at is None:
                processed, timings = min(n_past, sequence.n_prompt), sequence.timings(now)
                self._out.append(StepOutput(id=sequence.id, processed=processed, timings=timings))

    def _choose(self, sequence: ScheduledSequence, item: BatchItem, place: int, row: int, now: float) -> None:
        """Choose the next tokens of a sequence from the logits of its rows, and report them."""
        if len(sequence.tokens) >= sequence.n_end:  # max_tokens is 0: it only fills the prefix cache
            self._finish(sequence, FinishReason.LENGTH)
            return
        counters, before = self._counters, len(sequence.tokens)
        tokens, n_right, reason, error = self._chooser.choose(sequence, item, place, row)
        sequence.n_past += n_right
        self.drafting.verified(sequence, len(item.draft), n_right)
        counters.predicted_tokens += len(sequence.tokens) - before
        timings = None
        if tokens and sequence.first_token_at is None:
            sequence.first_token_at = now
            timings = sequence.timings(now)
        if isinstance(error, ConfigError) and sequence.guide is not None:
            self._finish_constrained(sequence, error, tokens)
        elif error is not None:
            self._fail(sequence, str(error) or repr(error), tokens)
        elif reason is None:
            sequence.trim()  # behind the first wrong token of a draft
            self._out.append(StepOutput(id=sequence.id, tokens=tokens, timings=timings))
        else:
            self._finish(sequence, reason, tokens)
        if item.draft:
            output = self._out[-1]
            output.draft_n, output.draft_accepted = len(item.draft), n_right
            counters.drafts += 1
            counters.draft_tokens += len(item.draft)
            counters.draft_accepted_tokens += n_right

    # ** ends **

    def _finish(
        self,
        sequence: ScheduledSequence,
        reason: FinishReason,
        tokens: Sequence[Token] = (),
        *,
        error: str | None = None,
        unmet: bool = False,
    ) -> None:
        """End a sequence and report it. What it computed goes to the prefix cache."""
        timings = sequence.timings(monotonic())
        self._retire(sequence)
        self._out.append(
            StepOutput(
                id=sequence.id, tokens=list(tokens), finish=reason, error=error, unmet=unmet, timings=timings
            )
        )

    def _finish_constrained(
        self, sequence: ScheduledSequence, error: ConfigError, tokens: Sequence[Token]
    ) -> None:
        """No token may follow. If the constraint is met so far that is an end, even if params forbid one."""
        assert sequence.guide is not None
        if sequence.guide.may_stop:
            self._finish(sequence, FinishReason.STOP, tokens)
        else:
            self._finish(sequence, FinishReason.ERROR, tokens, error=str(error), unmet=True)

    def _fail(
        self,
        sequence: ScheduledSequence,
        error: str,
        tokens: Sequence[Token] = (),
        *,
        out_of_memory: bool = False,
    ) -> None:
        """End a sequence whose computation failed and report it. Its cells may be wrong and are cleared."""
        timings = sequence.timings(monotonic())
        cells, rows = sequence.cells[:], self.pool.rows_of(sequence.cells)
        self._retire(sequence, keep=False)
        if cells:
            self._runner.clear(*self.pool.freed(cells, rows))
        self._out.append(
            StepOutput(
                id=sequence.id,
                tokens=list(tokens),
                finish=FinishReason.ERROR,
                error=error,
                out_of_memory=out_of_memory,
                timings=timings,
            )
        )

    def _retire(self, sequence: ScheduledSequence, *, keep: bool = True) -> None:
        """Give back a sequence's cells and forget it. keep: what they hold stays in the prefix cache."""
        sequence.release(keep=keep)
        self.drafting.forget(sequence)
        self.queues.remove(sequence)

    # ** observation **

    def stats(self) -> EngineStats:
        """Gauges of this moment and counters since the start."""
        counters, queues, pool = self._counters, self.queues, self.pool
        counters.running = len(queues.running) + len(queues.paused)
        counters.waiting = len(queues.waiting) + len(queues.compiling)
        counters.cells_cached = self.prefix.n_evictable
        counters.cells_used = pool.n_cells - self.prefix.n_available
        counters.window_rows_total, counters.window_rows_used, counters.window_rows_cached = pool.window_rows
        counters.preemptions = self._admission.n_preempted
        counters.evicted_cells = self.prefix.n_evicted
        counters.missed_tokens = dict(self._builder.missed)
        return copy(counters)

    def check(self, others: Iterable[CachedSequence] = ()) -> None:
        """Raise AssertionError if a cell has not exactly one owner, or a count is wrong.

        others: sequences outside of this scheduler that use the same pool.
        """
        self._admission.check(others)
