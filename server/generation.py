"""A job: the sequences that one HTTP request asks for, from the engine's tokens to text that may be sent."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.detokenizer import Detokenizer, StopMatcher

from engine.errors import ContextOverflowError, EngineError
from engine.types import Emission, FinishReason, Timings, Token
from engine.types import Request as EngineRequest
from server.errors import ApiError, bad_request, internal_error, overloaded
from server.streams import EngineUnavailable, QueueFull

if TYPE_CHECKING:
    from server.access import Record
    from server.deps import Engine, ModelFacts, State

_FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIMEOUT: "length",
}


class Shown(NamedTuple):
    """A token that the client sees. `start`: characters of the choice's text before it."""

    token: Token
    start: int


class Piece(NamedTuple):
    """News of a choice that can be sent now."""

    text: str
    tokens: list[Shown]


class Choice:
    """One sequence. Turns emissions into pieces: whole characters, never a part of a stop string."""

    def __init__(
        self,
        index: int,
        prompt_index: int,
        request: EngineRequest,
        tokenizer: Any,
        stops: Sequence[str],
        final_ids: Collection[int],
        show_tokens: bool,
        prefix: str = "",
    ) -> None:
        self.index, self.prompt_index, self.request = index, prompt_index, request
        self.prefix = prefix  # echoed prompt
        self.detokenizer = Detokenizer(tokenizer)
        self.stop = StopMatcher(stops) if stops else None
        self.final_ids = final_ids  # tokens that end the text and are no part of it
        self.show_tokens = show_tokens
        self.n_generated = 0
        self.processed: int | None = None
        self.finish: str | None = None
        self.reason: FinishReason | None = None
        self.error: str | None = None
        self.timings = Timings(n_batch=request.n_batch)
        self.first_at = self.last_at = 0.0
        self._pending: list[tuple[Token, int, int]] = []  # token, start and end of its text
        self._made = len(prefix)  # characters out of the detokenizer
        self._sent = len(prefix)

    def feed(self, emission: Emission) -> Piece | None:
        """The piece that this emission completes, if any. Sets `finish` at the end."""
        reason = emission.finish
        if emission.timings is not None:
            self.timings = emission.timings
        tokens = emission.tokens
        if not tokens and reason is None:
            self.processed = emission.processed
            return None
        self.n_generated += len(tokens)
        if reason is FinishReason.STOP and tokens and tokens[-1].id in self.final_ids:
            tokens = tokens[:-1]
        text = self._text_of(tokens)
        if self.stop is not None and text:
            text, hit = self.stop.push(text)
            if hit is not None:
                self.finish, self.reason = "stop", FinishReason.STOP
                self._close_timings()
                return self._piece(text, final=True)
        if reason is None:
            return self._piece(text) if text or self._pending else None
        self.reason = reason
        if reason is FinishReason.ERROR:
            self.error = emission.error or "unknown"
        if emission.timings is None:
            self._close_timings()
        text += self._rest()
        self.finish = self.finish or _FINISH.get(reason, "error")
        return self._piece(
            text, final=True, everything=self.reason is not FinishReason.STOP or self.stop is None
        )

    def _text_of(self, tokens: Sequence[Token]) -> str:
        push = self.detokenizer.push
        if not self.show_tokens:
            if len(tokens) == 1:
                return push(tokens[0].id)
            return "".join([push(token.id) for token in tokens])
        parts = []
        for token in tokens:
            part = push(token.id)
            self._pending.append((token, self._made, self._made + len(part)))
            self._made += len(part)
            parts.append(part)
        return "".join(parts)

    def _rest(self) -> str:
        """What was held back, now that nothing follows."""
        text = self.detokenizer.flush()
        self._made += len(text)
        if self.stop is None:
            return text
        held, hit = self.stop.push(text) if text else ("", None)
        if hit is not None:
            self.finish, self.reason = "stop", FinishReason.STOP
            return held
        return held + self.stop.flush()

    def _piece(self, text: str, final: bool = False, everything: bool = False) -> Piece:
        self._sent += len(text)
        if not self._pending:
            return Piece(text, [])
        shown, n = [], 0
        for token, start, end in self._pending:
            # The last token of a text cut by a stop string may be shown in part.
            if end > self._sent and not everything and not (final and start < self._sent):
                break
            shown.append(Shown(token, start))
            n += 1
        del self._pending[:n]
        return Piece(text, shown)

    def _close_timings(self) -> None:
        """Timings of a session that we ended: the engine told only those of its first token."""
        self.timings.predicted_n = self.n_generated
        if self.first_at:
            self.timings.predicted_ms = (time.monotonic() - self.first_at) * 1000


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
    ) -> None:
        self.state, self.engine, self.facts, self.record = state, engine, facts, record
        self.id, self.choices, self.warnings = id, choices, warnings
        self.stream, self.include_usage = stream, include_usage
        self.created = int(time.time())
        self.started = time.monotonic()
        self.model = engine.name
        self.cancelled = False
        record.model = engine.name

    async def events(self) -> AsyncGenerator[tuple[Choice, Piece], None]:
        """Pieces of all choices as they come. Closing it cancels what still runs, within one engine step."""
        self.state.jobs[self.id] = self
        try:
            if len(self.choices) == 1:
                source = self._one(self.choices[0])
            else:
                source = self._several()
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
            metrics.rejected()
            raise overloaded(self.model, error.retry_after_s) from error
        except ContextOverflowError as error:
            raise bad_request(str(error), "prompt", "context_length_exceeded") from error
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

    def _failure(self, choice: Choice) -> ApiError:
        if self.state.stopping or self.engine.state == "stopped":
            return unavailable(self.engine)
        if self.cancelled or choice.reason is FinishReason.CANCELLED:
            return ApiError(499, "the request was cancelled", code="request_cancelled", retry=False)
        if choice.error:
            self.record.error = choice.error[:500]
        error = internal_error(self.record.id)
        error.headers = {"x-should-retry": "false"}  # the same prompt would likely fail again
        return error

    def _note_timeout(self, choice: Choice) -> None:
        if choice.reason is FinishReason.TIMEOUT:
            text = "timeout_ms: the time was up; the text ends there"
            if text not in self.warnings:
                self.warnings.append(text)

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
        return {
            "prompt_tokens": prompt,
            "completion_tokens": predicted,
            "total_tokens": prompt + predicted,
            "prompt_tokens_details": {"cached_tokens": sum(cached.values())},
        }

    def timings(self) -> dict[str, Any]:
        each = [choice.timings for choice in self.choices]
        total: Callable[[str], Any] = lambda name: sum(getattr(timings, name) for timings in each)  # noqa: E731
        return {
            "queue_ms": round(total("queue_ms"), 3),
            "prompt_n": total("prompt_n"),
            "cached_n": total("cached_n"),
            "prompt_ms": round(total("prompt_ms"), 3),
            "predicted_n": total("predicted_n"),
            "predicted_ms": round(total("predicted_ms"), 3),
            "n_batch": each[0].n_batch,
        }

    def tail(self) -> dict[str, Any]:
        """What the whole response, or the last chunk, says besides the text."""
        found: dict[str, Any] = {"timings": self.timings()}
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
                choice._close_timings()
        record.prompt_n = usage["prompt_tokens"]
        record.cached_n = usage["prompt_tokens_details"]["cached_tokens"]
        record.predicted_n = usage["completion_tokens"]
        record.queue_ms = round(max(choice.timings.queue_ms for choice in self.choices), 1)
        first = min((choice.first_at for choice in self.choices if choice.first_at), default=0.0)
        record.ttft_ms = round((first - self.started) * 1000, 1) if first else None
        record.finish = ",".join(dict.fromkeys(choice.finish or "none" for choice in self.choices))
        self.state.metrics.of(self.model).tokens(record.prompt_n, record.cached_n, record.predicted_n)


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
