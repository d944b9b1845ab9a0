"""One output sequence of a job: from the engine's tokens to text that can be sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from engine.tokenizer.detokenizer import Detokenizer, StopMatcher
from engine.types import FinishReason, Request, StepOutput, Timings, Token
from server.chat.output import OutputDelta, PromptProgress, ShownToken, ToolCallDelta
from server.chat.prompt import Prompt
from server.generation.options import GenerationOptions


class SequenceEnd(StrEnum):
    """How a sequence ended; each API has its own word for it."""

    STOP = "stop"  # by the model, a stop string or a stop token
    LENGTH = "length"  # by a limit of tokens or time
    TOOL_CALLS = "tool_calls"  # as STOP, with calls of tools in its text
    ERROR = "error"


_ENDS = {
    FinishReason.STOP: SequenceEnd.STOP,
    FinishReason.LENGTH: SequenceEnd.LENGTH,
    FinishReason.TIMEOUT: SequenceEnd.LENGTH,
}


class OutputSequence:
    """One engine request and its output: whole characters, and never a part of a stop string."""

    def __init__(
        self,
        index: int,
        prompt_index: int,
        prompt: Prompt,
        request: Request,
        options: GenerationOptions,
        tokenizer: Any,
    ) -> None:
        """request: continues `prompt`."""
        self.index, self.prompt_index, self.request = index, prompt_index, request
        self.parser, self.echo = prompt.new_parser(), prompt.echo
        self.stop_string: str | None = None  # the one that ended the text
        self.end_token: Token | None = None  # that ended it; no part of the text
        self.n_generated = 0
        self.n_reasoning = 0
        self.token_ids: list[int] = []  # that the client has seen, where they are requested
        self.logprob = 0.0  # of the whole text, where log-probabilities are requested
        self.processed: int | None = None  # tokens of the prompt
        self.has_line_break = False
        self.end: SequenceEnd | None = None
        self.engine_finish: FinishReason | None = None
        self.error: str | None = None
        self.out_of_memory = self.unmet = False
        self.timings = Timings(n_batch=request.n_batch)
        self.first_at = self.last_at = 0.0
        self._draft_n = self._draft_accepted = 0  # an engine that was restarted counts from zero
        self._detokenizer = Detokenizer(tokenizer, preserved=prompt.preserved_tokens())
        self._stop = StopMatcher(options.stop) if options.stop else None
        self._end_ids = tokenizer.eog_ids.union(request.params.stop_token_ids)
        self._has_logprobs = request.params.logprobs is not None
        self._return_tokens = options.return_tokens
        self._show_tokens = options.return_tokens or self._has_logprobs
        self._report_progress = options.report_progress
        self._line_break_after_ms = options.line_break_after_ms
        self._pending: list[tuple[Token, int, int]] = []  # token, start and end of its text
        self._decoded = len(prompt.echo)  # characters out of the detokenizer
        self._sent = len(prompt.echo)
        self._reported: int | None = None  # progress of the prompt

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability per token, if log-probabilities are requested."""
        return self.logprob / max(self.n_generated, 1)

    @property
    def n_chars(self) -> int:
        """Characters of the text so far, including the echoed prompt."""
        return self._sent

    def feed(self, output: StepOutput) -> OutputDelta | None:
        """What can be sent to the client now; None: nothing. Sets `end` at the end."""
        reason = output.finish
        if output.timings is not None:
            self.timings = output.timings
        self._draft_n += output.draft_n
        self._draft_accepted += output.draft_accepted
        self.timings.draft_n, self.timings.draft_accepted = self._draft_n, self._draft_accepted
        tokens = output.tokens
        if not tokens and reason is None:
            self.processed = output.processed
            progress = self._progress(output.processed)
            return OutputDelta(progress=progress) if progress else None
        progress = self._progress(len(self.request.prompt)) if self._report_progress and tokens else []
        self.n_generated += len(tokens)
        if self._has_logprobs:
            self.logprob += sum(token.logprob for token in tokens if token.logprob is not None)
        if reason is FinishReason.STOP and tokens and tokens[-1].id in self._end_ids:
            self.end_token = tokens[-1]
            tokens = tokens[:-1]
        text, stopped = self._text_of(tokens), False
        if reason is not None:
            text += self._flushed()
        if self._stop is not None:
            text, self.stop_string = self._stop.push(text)
            stopped = self.stop_string is not None
            if reason is not None and not stopped:
                text += self._stop.flush()
        if "\n" in text:
            text = self._line_break(text, ended=stopped or reason is not None)
        cut = stopped or self.end is not None
        if stopped:
            self.end, self.engine_finish = SequenceEnd.STOP, FinishReason.STOP
            self.close()
        elif reason is not None:
            self.end, self.engine_finish = _ENDS.get(reason, SequenceEnd.ERROR), reason
            self.error, self.out_of_memory = output.error, output.out_of_memory
            self.unmet = output.unmet
            if output.timings is None:
                self.close()
        elif self.end is not None:
            self.close()
        elif not text and not self._pending and not progress:
            self._split("", len(tokens))
            return None
        shown = self._shown(text, cut=cut, all=reason is not None)
        parts = self._split(text, len(tokens))
        return OutputDelta(parts.content, parts.reasoning, parts.tools, text, shown, progress)

    def _progress(self, processed: int | None) -> list[PromptProgress]:
        """Progress since the last call; the first call reports the cached tokens."""
        if not self._report_progress or processed is None:
            return []
        reports: list[PromptProgress] = []
        total, cached = len(self.request.prompt), self.timings.cached_n
        if self._reported is None:
            self._reported = cached
            reports.append(PromptProgress(total, cached, cached, 0.0))
        if processed > self._reported:
            self._reported = processed
            reports.append(PromptProgress(total, cached, processed, self.timings.prompt_ms))
        return reports

    def _line_break(self, text: str, ended: bool) -> str:
        """Record a line break; once the time limit has passed, the text ends at it."""
        limit = None if ended else self._line_break_after_ms
        if limit is not None and self.has_line_break and (time.monotonic() - self.first_at) * 1000 > limit:
            self.end, self.engine_finish = SequenceEnd.LENGTH, FinishReason.LENGTH
            return text[: text.index("\n") + 1]
        self.has_line_break = True
        return text

    def _split(self, text: str, n_tokens: int) -> OutputDelta:
        """The parsed parts of the text; at the end, including what the parser held back."""
        parser = self.parser
        if parser is None:
            return OutputDelta(text)
        before, last = parser.reasoning, self.end is not None
        parts = parser.push(text, last) if text or last else OutputDelta()
        if before or parser.reasoning or parts.reasoning:
            self.n_reasoning += n_tokens
        if self.end is SequenceEnd.STOP and parser.has_calls:
            self.end = SequenceEnd.TOOL_CALLS
        return parts

    def _text_of(self, tokens: Sequence[Token]) -> str:
        push = self._detokenizer.push
        if not self._show_tokens:
            if len(tokens) == 1:
                return push(tokens[0].id)
            return "".join([push(token.id) for token in tokens])
        parts = []
        for token in tokens:
            part = push(token.id)
            self._pending.append((token, self._decoded, self._decoded + len(part)))
            self._decoded += len(part)
            parts.append(part)
        return "".join(parts)

    def _flushed(self) -> str:
        """An incomplete character at the end."""
        text = self._detokenizer.flush()
        self._decoded += len(text)
        return text

    def _shown(self, text: str, cut: bool, all: bool) -> list[ShownToken]:
        """The tokens whose text has been sent; the others wait. cut: no further tokens follow."""
        self._sent += len(text)
        if not self._pending:
            return []
        n = 0
        for _, start, end in self._pending:
            # The last token before a stop string may be shown in part.
            if end > self._sent and not (cut and start < self._sent) and (cut or not all):
                break
            n += 1
        shown = [ShownToken(token, start) for token, start, _ in self._pending[:n]]
        del self._pending[:n]
        if self._return_tokens:
            self.token_ids += [token.id for token, _ in shown]
        return shown

    def so_far(self) -> Timings:
        """Timings until now."""
        if self.end is not None or not self.first_at:
            return self.timings
        ms = (time.monotonic() - self.first_at) * 1000
        return msgspec.structs.replace(self.timings, predicted_n=self.n_generated, predicted_ms=ms)

    def close(self) -> None:
        """Complete the timings of a sequence that the server ended; the engine sent only the first ones."""
        self.timings.predicted_n = self.n_generated
        if self.first_at:
            self.timings.predicted_ms = (time.monotonic() - self.first_at) * 1000


def by_token(output: StepOutput) -> Iterator[StepOutput]:
    """The update as steps of one token each, so that whatever ends a text is found at its token, as without
    drafts.
    """
    tokens = output.tokens
    for i, token in enumerate(tokens[:-1]):
        counts = (output.draft_n, output.draft_accepted) if i == 0 else (0, 0)
        yield StepOutput(id=output.id, tokens=[token], draft_n=counts[0], draft_accepted=counts[1])
    if len(tokens) > 1:
        output = msgspec.structs.replace(output, tokens=tokens[-1:], draft_n=0, draft_accepted=0)
    yield output


def merge_deltas(deltas: Sequence[OutputDelta]) -> OutputDelta:
    """Consecutive pieces of an output merged into one, with a single ToolCallDelta per call."""
    return OutputDelta(
        "".join([delta.content for delta in deltas]),
        "".join([delta.reasoning for delta in deltas]),
        _merge_calls(part for delta in deltas for part in delta.tools),
        "".join([delta.text for delta in deltas]),
        tuple([token for delta in deltas for token in delta.tokens]),
    )


def _merge_calls(parts: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    arguments: dict[int, list[str]] = {}
    calls: dict[int, ToolCallDelta] = {}
    for part in parts:
        calls.setdefault(part.index, part)
        arguments.setdefault(part.index, []).append(part.arguments)
    replace = msgspec.structs.replace
    return tuple(replace(calls[index], arguments="".join(arguments[index])) for index in sorted(calls))


SequenceOutput = tuple[OutputSequence, OutputDelta]  # a sequence, and the next piece or all of its output
