"""A job: the sequences of one HTTP request, run to completion, with their tokens and timings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from engine.config import n_shifted
from engine.errors import ContextOverflowError, EngineError
from engine.types import FinishReason, Request, StepOutput, Timings
from server.chat.output import OutputDelta, ShownToken
from server.chat.prompt import Prompt
from server.errors import NEVER, ApiError, ContextExceeded, internal_error, overloaded
from server.generation.options import GenerationOptions
from server.generation.output_processor import (
    OutputSequence,
    SequenceEnd,
    SequenceOutput,
    by_token,
    merge_deltas,
)
from server.generation.request_context import Phase, RequestContext, unavailable
from server.worker.errors import EngineUnavailable, QueueFull


class ScoredPrompt(NamedTuple):
    """A prompt's tokens with their log-probabilities and ranks; None for the first token."""

    tokens: Sequence[ShownToken]
    ranks: Sequence[int | None]


PromptScores = Mapping[int, ScoredPrompt]  # by prompt index
_SUMS = [name for name in Timings.__struct_fields__ if name != "n_batch"]


class TokenCounts(NamedTuple):
    """Totals over all sequences, with each prompt counted once. cached: part of `prompt`; reasoning: part of
    `generated`.
    """

    prompt: int
    cached: int
    generated: int
    reasoning: int


class Job:
    """All sequences of one HTTP request."""

    def __init__(
        self,
        context: RequestContext,
        id: str,
        requests: Sequence[tuple[Prompt, Sequence[Request]]],
        options: GenerationOptions,
        score_prompts: Callable[[], Awaitable[PromptScores]] | None = None,
    ) -> None:
        """requests: those of each prompt.

        score_prompts: computes `prompt_scores` before the sequences run.
        """
        self.context, self.id, self.options = context, id, options
        self.engine = context.engine
        tokenizer = self.engine.tokenizer
        self.sequences: list[OutputSequence] = []
        for i, (prompt, continuations) in enumerate(requests):
            for request in continuations:
                index = len(self.sequences)
                self.sequences.append(OutputSequence(index, i, prompt, request, options, tokenizer))
        self.model = self.engine.name
        self.created = int(time.time())
        self.started = time.monotonic()
        self.cancelled = False
        self.prompt_scores: PromptScores = {}
        self._score_prompts = score_prompts
        self._metrics = context.state.metrics.of(self.model)
        context.record.model = self.model

    def n_dropped(self, sequence: OutputSequence) -> int:
        """Tokens of a sequence that context shifts dropped."""
        if not self.context.state.settings.context_shift:
            return 0
        n_tokens = len(sequence.request.prompt) + sequence.n_generated
        request, n_ctx = sequence.request, self.engine.n_ctx
        return n_shifted(n_tokens - 1, request.n_keep, n_ctx, request.n_discard)  # the last is not computed

    def is_truncated(self, sequence: OutputSequence) -> bool:
        """Whether the sequence's context was full, so that it ended or lost tokens from its middle."""
        if self.context.state.settings.context_shift:
            return self.n_dropped(sequence) > 0
        limited = sequence.engine_finish is FinishReason.LENGTH
        return limited and len(sequence.request.prompt) + sequence.n_generated >= self.engine.n_ctx

    async def events(self) -> AsyncGenerator[SequenceOutput, None]:
        """Deltas of all sequences as they arrive. Closing it cancels unfinished sequences within one engine
        step.
        """
        self.ensure_room()
        self.context.spend_prompt(self.counts().prompt)
        jobs = self.context.state.jobs
        jobs[self.id] = self
        try:
            if self._score_prompts is not None:
                self.prompt_scores = await self._score_prompts()
            source = self._one(self.sequences[0]) if len(self.sequences) == 1 else self._several()
            async with aclosing(source):
                async for event in source:
                    yield event
        finally:
            jobs.pop(self.id, None)
            self._account()

    async def run(self, collect: Callable[[OutputSequence, OutputDelta], None]) -> list[SequenceOutput]:
        """Run to the end. Returns the sequences that the client is to see. collect: is passed every delta."""
        deltas: dict[OutputSequence, list[OutputDelta]] = {sequence: [] for sequence in self.sequences}
        async with aclosing(self.events()) as events:
            async for sequence, delta in events:
                deltas[sequence].append(delta)
                collect(sequence, delta)
        return [(sequence, merge_deltas(deltas[sequence])) for sequence in self._likeliest()]

    async def _one(self, sequence: OutputSequence) -> AsyncGenerator[SequenceOutput, None]:
        try:
            async with aclosing(self.engine.generate(sequence.request)) as outputs:
                async for step in outputs:
                    if step.tokens:
                        self._measure(sequence, step)
                        if (limit := self.context.client.usage.tokens) is not None:
                            limit.spend(len(step.tokens))
                    for output in by_token(step):
                        delta = sequence.feed(output)
                        if sequence.end is SequenceEnd.ERROR:
                            raise self._failure(sequence)
                        if sequence.engine_finish is FinishReason.TIMEOUT:
                            self.context.warn("timeout_ms: the time limit expired; the text is incomplete")
                        if delta is not None:
                            yield sequence, delta
                        if sequence.end is not None:
                            return
        except QueueFull as error:
            self._metrics.rejected()
            raise overloaded(self.model, error.retry_after_s) from error
        except ContextOverflowError as error:
            raise ContextExceeded(str(error), "prompt", error.n_prompt, error.n_ctx) from error
        except EngineUnavailable as error:
            raise unavailable(self.engine) from error
        except EngineError as error:
            raise internal_error(self.context.record.id) from error
        raise self._failure(sequence)

    def _measure(self, sequence: OutputSequence, step: StepOutput) -> None:
        """Record that a step produced the next tokens of a sequence."""
        now, n_tokens = time.monotonic(), len(step.tokens)
        if sequence.last_at:
            for _ in range(n_tokens):
                self._metrics.gap((now - sequence.last_at) / n_tokens)
        else:
            sequence.first_at = now
            self._metrics.first(now - self.started)
            if step.timings is not None:
                self._metrics.queue(step.timings.queue_ms / 1e3)
                self._metrics.prefill(step.timings.prompt_ms / 1e3)
        sequence.last_at = now

    async def _several(self) -> AsyncGenerator[SequenceOutput, None]:
        """Run sequences concurrently, but no more than the engine decodes together, in fairness to other
        requests.
        """
        queue: asyncio.Queue[SequenceOutput | BaseException | None] = asyncio.Queue(16)
        turns = asyncio.Semaphore(self.context.state.settings.parallel)

        async def pump(sequence: OutputSequence) -> None:
            try:
                async with turns:
                    if self.cancelled:
                        raise self._failure(sequence)
                    async with aclosing(self._one(sequence)) as events:
                        async for event in events:
                            await queue.put(event)
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        tasks = [asyncio.create_task(pump(sequence)) for sequence in self.sequences]
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if item is None:
                    left -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def ensure_room(self) -> None:
        """Raises ApiError (429) if the queue is full.

        All sequences are admitted or none, as far as that is known now: half a response would be useless.
        """
        self.context.ensure_room(min(len(self.sequences), self.context.state.settings.parallel))

    def cancel(self) -> None:
        """Cancel the job from outside, as DELETE /v1/requests/{id} does."""
        self.cancelled = True
        for sequence in self.sequences:
            self.engine.cancel(sequence.request.id)

    def _likeliest(self) -> Sequence[OutputSequence]:
        """The sequences that the response shows, renumbered: the `n` most likely of each prompt."""
        n = self.options.n
        if n == (self.options.best_of or n):
            return self.sequences
        shown: list[OutputSequence] = []
        for i in dict.fromkeys(sequence.prompt_index for sequence in self.sequences):
            mine = [sequence for sequence in self.sequences if sequence.prompt_index == i]
            mine.sort(key=lambda sequence: sequence.mean_logprob, reverse=True)
            shown += mine[:n]
        for index, sequence in enumerate(shown):
            sequence.index = index
        return shown

    def counts(self) -> TokenCounts:
        """Token counts so far."""
        prompts: dict[int, int] = {}
        cached: dict[int, int] = {}
        generated = reasoning = 0
        for sequence in self.sequences:
            i = sequence.prompt_index
            prompts[i] = len(sequence.request.prompt)
            # Later sequences of a prompt hit what the first one computed: that was no earlier request's.
            cached[i] = min(cached.get(i, prompts[i]), sequence.timings.cached_n)
            generated += sequence.n_generated
            reasoning += sequence.n_reasoning
        return TokenCounts(sum(prompts.values()), sum(cached.values()), generated, reasoning)

    def timings(self) -> dict[str, Any]:
        """Timings summed over all sequences."""
        return total_timings([sequence.timings for sequence in self.sequences])

    def progress(self) -> str:
        """The progress in one line, for keep-alive comments."""
        total = sum(len(sequence.request.prompt) for sequence in self.sequences)
        done = sum(len(s.request.prompt) if s.first_at else s.processed or 0 for s in self.sequences)
        return f"prompt {done}/{total}" if done < total else "generating"

    def _failure(self, sequence: OutputSequence) -> ApiError:
        if self.engine.state == "stopped":
            return unavailable(self.engine)
        record = self.context.record
        if self.cancelled or sequence.engine_finish is FinishReason.CANCELLED:
            if not self.cancelled and sequence.error:  # by the server, for this reason
                record.error = record.error or sequence.error[:500]
            return ApiError(499, "the request was cancelled", code="request_cancelled", retry_after=NEVER)
        if sequence.error:
            record.error = sequence.error[:500]
        if sequence.out_of_memory:
            message = "a device had too little memory for this request; send a shorter prompt or a smaller "
            return ApiError(
                503, message + "batch_size, or try again later", code="out_of_memory", retry_after=NEVER
            )
        if sequence.unmet:
            message = f"no continuation of the text satisfies the output constraint: {sequence.error}"
            return ApiError(400, message, code="constraint_failed", retry_after=NEVER)
        return internal_error(record.id, NEVER)  # the same prompt would likely fail again

    def _account(self) -> None:
        """Complete the access-log record and the metrics."""
        for sequence in self.sequences:
            if sequence.end is None:
                sequence.close()
        counts, record, metrics = self.counts(), self.context.record, self._metrics
        record.prompt_n, record.cached_n, record.predicted_n = counts.prompt, counts.cached, counts.generated
        record.queue_ms = round(max(sequence.timings.queue_ms for sequence in self.sequences), 1)
        first = min((sequence.first_at for sequence in self.sequences if sequence.first_at), default=0.0)
        record.ttft_ms = round((first - self.started) * 1000, 1) if first else None
        record.finish = ",".join(dict.fromkeys(sequence.end or "none" for sequence in self.sequences))
        if self.context.state.traces is not None:
            record.phases = [phase for sequence in self.sequences for phase in self._phases(sequence)]
        metrics.tokens(counts.prompt, counts.cached, counts.generated)
        for sequence in self.sequences:
            metrics.sequence_ended(sequence.timings)

    def _phases(self, sequence: OutputSequence) -> list[Phase]:
        """When a sequence was queued, in prefill and in decode. A sequence without tokens ended in one of the
        first two.
        """
        timings, now = sequence.timings, time.monotonic()
        end = sequence.first_at or now
        prompt_s = timings.prompt_ms / 1e3 if sequence.first_at or sequence.processed is not None else 0.0
        start = max(end - prompt_s, self.started)
        phases = [Phase("queue", self.started, start)]
        if prompt_s:
            phases.append(
                Phase("prefill", start, end, {"tokens": timings.prompt_n, "cached": timings.cached_n})
            )
        if sequence.first_at:
            phases.append(Phase("decode", end, sequence.last_at, {"tokens": sequence.n_generated}))
        return phases


def timings_reply(timings: Timings, n_steps: int | None = None) -> dict[str, Any]:
    """Timings and token counts under our names and llama-server's, with rates: of one sequence, or of
    several, with `n_steps` decode steps in total.

    The first token of each sequence comes with its prompt, so there is one step less than tokens.
    """
    values = {name: round(getattr(timings, name), 3) for name in _SUMS}
    steps = max(timings.predicted_n - 1, 0) if n_steps is None else n_steps
    prompt_ms, predicted_ms = values["prompt_ms"], values["predicted_ms"]
    return {
        **values,
        "n_batch": timings.n_batch,
        "cache_n": timings.cached_n,
        "draft_n_accepted": timings.draft_accepted,
        "prompt_per_token_ms": prompt_ms / timings.prompt_n if timings.prompt_n else 0.0,
        "prompt_per_second": 1e3 * timings.prompt_n / prompt_ms if prompt_ms else 0.0,
        "predicted_per_token_ms": predicted_ms / steps if steps else 0.0,
        "predicted_per_second": 1e3 / predicted_ms * steps if predicted_ms else 0.0,
    }


def total_timings(each: Sequence[Timings]) -> dict[str, Any]:
    """The timings of several sequences, summed."""
    sums = {name: sum(getattr(timings, name) for timings in each) for name in _SUMS}
    n_steps = sum(max(timings.predicted_n - 1, 0) for timings in each)
    return timings_reply(Timings(**sums, n_batch=each[0].n_batch), n_steps)


def visible_jobs(context: RequestContext) -> list[Job]:
    """The running jobs that the client may see, oldest first."""
    jobs = (job for job in context.state.jobs.values() if isinstance(job, Job))
    return [job for job in jobs if context.client.may_see(job.context.owner)]
