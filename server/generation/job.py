"""A job: the sequences that one HTTP request asks for, run to their end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from engine.errors import ContextOverflowError, EngineError
from engine.types import FinishReason
from server.api.common import timings
from server.api.common.fingerprint import fingerprint
from server.errors import ApiError, context_exceeded, internal_error, overloaded
from server.generation.output_processor import Choice, Piece
from server.worker.errors import EngineUnavailable, QueueFull

if TYPE_CHECKING:
    from server.dependencies import Engine, ModelFacts, State
    from server.http.middleware.access_log import Record
    from server.http.sse import Answer


class Job:
    """All choices of one HTTP request, and what the response says about them."""

    def __init__(
        self,
        state: State,
        engine: Engine,
        facts: ModelFacts,
        record: Record,
        *,
        id: str,
        choices: list[Choice],
        warnings: list[str],
        stream: bool = False,
        include_usage: bool = False,
        n_shown: int | None = None,
    ) -> None:
        self.prelude: Callable[[], Awaitable[None]] | None = None  # runs before the choices
        self.state, self.engine, self.facts, self.record = state, engine, facts, record
        self.id, self.choices, self.warnings = id, choices, warnings
        self.stream, self.include_usage = stream, include_usage
        self.n_shown = n_shown  # of each prompt's choices, the likeliest (None: all)
        self.fingerprint = fingerprint(engine.info)
        self.created = int(time.time())
        self.started = time.monotonic()
        self.model = engine.name
        self.cancelled = False
        self.timings_per_token = False
        self.verbose: Callable[[Sequence[Answer]], dict[str, Any]] | None = None
        record.model = engine.name

    async def events(self) -> AsyncGenerator[tuple[Choice, Piece], None]:
        """Pieces of all choices as they come. Closing it cancels what still runs, within one engine step."""
        self.state.jobs[self.id] = self
        try:
            if self.prelude is not None:
                await self.prelude()
            source = self._one(self.choices[0]) if len(self.choices) == 1 else self._several()
            async with aclosing(source):
                async for event in source:
                    yield event
        finally:
            self.state.jobs.pop(self.id, None)
            self._account()

    async def _one(self, choice: Choice) -> AsyncGenerator[tuple[Choice, Piece], None]:
        metrics = self.state.metrics.of(self.model)
        try:
            async with aclosing(self.engine.generate(choice.request)) as emissions:
                async for emission in emissions:
                    if emission.tokens:
                        now = time.monotonic()
                        if choice.last_at:
                            metrics.gap(now - choice.last_at)
                        else:
                            choice.first_at = now
                            metrics.first(now - self.started)
                        choice.last_at = now
                    piece = choice.feed(emission)
                    if choice.finish == "error":
                        raise self._failure(choice)
                    if piece is not None:
                        yield choice, piece
                    if choice.finish is not None:
                        self._note_timeout(choice)
                        return
        except QueueFull as error:
            raise self._full(error) from error
        except ContextOverflowError as error:
            raise context_exceeded(str(error), "prompt", error.n_prompt, error.n_ctx) from error
        except EngineUnavailable as error:
            raise unavailable(self.engine) from error
        except EngineError as error:
            raise internal_error(self.record.id) from error
        raise self._failure(choice)

    async def _several(self) -> AsyncGenerator[tuple[Choice, Piece], None]:
        """Side by side, but no more at once than the engine decodes together: others get their turn."""
        queue: asyncio.Queue[tuple[Choice, Piece] | BaseException | None] = asyncio.Queue(16)
        turns = asyncio.Semaphore(self.state.settings.parallel)

        async def pump(choice: Choice) -> None:
            try:
                async with turns:
                    if self.cancelled:
                        raise self._failure(choice)
                    async with aclosing(self._one(choice)) as events:
                        async for event in events:
                            await queue.put(event)
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        try:
            # All or none, as far as can be told now: half an answer would be of no use.
            self.engine.ensure_room(min(len(self.choices), self.state.settings.parallel))
        except QueueFull as error:
            raise self._full(error) from error
        tasks = [asyncio.create_task(pump(choice)) for choice in self.choices]
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

    def cancel(self) -> None:
        """From outside, as DELETE /v1/requests/{id} does."""
        self.cancelled = True
        for choice in self.choices:
            self.engine.cancel(choice.request.id)

    def _full(self, error: QueueFull) -> ApiError:
        self.state.metrics.of(self.model).rejected()
        return overloaded(self.model, error.retry_after_s)

    def _failure(self, choice: Choice) -> ApiError:
        if self.state.stopping or self.engine.state == "stopped":
            return unavailable(self.engine)
        if self.cancelled or choice.reason is FinishReason.CANCELLED:
            return ApiError(499, "the request was cancelled", code="request_cancelled", retry=False)
        if choice.error:
            self.record.error = choice.error[:500]
        if choice.out_of_memory:
            message = "a device had too little memory for this request; send a shorter prompt or a smaller "
            return ApiError(
                503, message + "batch_size, or try again later", code="out_of_memory", retry=False
            )
        if choice.unmet:
            message = f"no text can meet the constraint on the output from here on: {choice.error}"
            return ApiError(400, message, code="constraint_failed", retry=False)
        error = internal_error(self.record.id)
        error.headers = {"x-should-retry": "false"}  # the same prompt would likely fail again
        return error

    def _note_timeout(self, choice: Choice) -> None:
        if choice.reason is FinishReason.TIMEOUT:
            text = "timeout_ms: the time was up; the text ends there"
            if text not in self.warnings:
                self.warnings.append(text)

    def best(self, answers: list[Answer]) -> list[Answer]:
        """The answers to be seen: of each prompt those with the greatest log-probability per token."""
        if self.n_shown is None:
            return answers
        kept: list[Answer] = []
        for i in dict.fromkeys(answer.choice.prompt_index for answer in answers):
            mine = [answer for answer in answers if answer.choice.prompt_index == i]
            mine.sort(key=lambda answer: answer.choice.mean_logprob, reverse=True)
            kept += mine[: self.n_shown]
        for index, answer in enumerate(kept):
            answer.choice.index = index
        return kept

    def usage(self) -> dict[str, Any]:
        """Summed over the choices; each prompt counted once."""
        prompts: dict[int, int] = {}
        cached: dict[int, int] = {}
        for choice in self.choices:
            i = choice.prompt_index
            prompts[i] = len(choice.request.prompt)
            # Later choices of a prompt find what the first one computed: that was no earlier request's.
            cached[i] = min(cached.get(i, prompts[i]), choice.timings.cached_n)
        prompt, predicted = sum(prompts.values()), sum(choice.n_generated for choice in self.choices)
        details = {"reasoning_tokens": sum(choice.n_reasoning for choice in self.choices)}
        return {
            "prompt_tokens": prompt,
            "completion_tokens": predicted,
            "total_tokens": prompt + predicted,
            "prompt_tokens_details": {"cached_tokens": sum(cached.values())},
            "completion_tokens_details": details,
        }

    def timings(self) -> dict[str, Any]:
        return timings.summed([choice.timings for choice in self.choices])

    def tail(self, answers: Sequence[Answer] = ()) -> dict[str, Any]:
        """What the whole response, or the last chunk of a stream (no `answers`), says besides the text."""
        found: dict[str, Any] = {"timings": self.timings()}
        if self.verbose is not None:
            found["__verbose"] = self.verbose(answers)
        if self.warnings:
            found["warnings"] = self.warnings
        return found

    def progress(self) -> str:
        """For keep-alive comments."""
        total = sum(len(choice.request.prompt) for choice in self.choices)
        done = sum(len(c.request.prompt) if c.first_at else c.processed or 0 for c in self.choices)
        return f"prompt {done}/{total}" if done < total else "generating"

    def _account(self) -> None:
        usage, record = self.usage(), self.record
        for choice in self.choices:
            if choice.finish is None:
                choice.close()
        record.prompt_n = usage["prompt_tokens"]
        record.cached_n = usage["prompt_tokens_details"]["cached_tokens"]
        record.predicted_n = usage["completion_tokens"]
        record.queue_ms = round(max(choice.timings.queue_ms for choice in self.choices), 1)
        first = min((choice.first_at for choice in self.choices if choice.first_at), default=0.0)
        record.ttft_ms = round((first - self.started) * 1000, 1) if first else None
        record.finish = ",".join(dict.fromkeys(choice.finish or "none" for choice in self.choices))
        metrics = self.state.metrics.of(self.model)
        metrics.tokens(record.prompt_n, record.cached_n, record.predicted_n)
        for choice in self.choices:
            metrics.sequence_ended(choice.timings)


def unavailable(engine: Engine) -> ApiError:
    if engine.state == "stopped":
        return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
    if engine.state == "failed":
        message = f"model '{engine.name}' failed and does not answer; see the server's log"
        return ApiError(503, message, code="engine_failed", retry=False)
    message = f"model '{engine.name}' is not available at the moment ({engine.state})"
    return ApiError(503, message, code="engine_unavailable", retry_after=2)


def new_id(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:24]
