"""One sequence of a job: from the engine's tokens to text that may be sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from engine.tokenizer.detokenizer import Detokenizer, StopMatcher
from engine.types import FinishReason, Request, StepOutput, Timings, Token
from server.chat.parser import OutputParser, ParsedOutput, merge_parsed

_FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIMEOUT: "length",
}


class Shown(NamedTuple):
    """A token that the client sees. `start`: characters of the choice's text before it."""

    token: Token
    start: int


class Progress(NamedTuple):
    """How far a prompt is, in tokens, and milliseconds since its first step."""

    total: int
    cached: int
    processed: int
    ms: float


class Piece(NamedTuple):
    """News of a choice that can be sent now."""

    text: str
    tokens: list[Shown]
    split: ParsedOutput | None = None  # the text's parts, where the choice has an output parser
    progress: Sequence[Progress] = ()  # of the prompt, before the text, where it is asked for

    @property
    def parts(self) -> ParsedOutput:
        return ParsedOutput(self.text) if self.split is None else self.split


class Choice:
    """One sequence. Turns emissions into pieces: whole characters, never a part of a stop string."""

    def __init__(
        self,
        index: int,
        prompt_index: int,
        request: Request,
        tokenizer: Any,
        stops: Sequence[str],
        final_ids: Collection[int],
        show_tokens: bool,
        prefix: str = "",
        parser: OutputParser | None = None,
        kept: Collection[int] = (),
    ) -> None:
        """kept: special tokens that are text to the parser."""
        self.index, self.prompt_index, self.request = index, prompt_index, request
        self.prefix = prefix  # echoed prompt
        self.echoed: list[Shown] = []  # and its tokens, where their log-probabilities are asked for
        self.detokenizer = Detokenizer(tokenizer, kept=kept)
        self.stop = StopMatcher(stops) if stops else None
        self.final_ids = final_ids  # tokens that end the text and are no part of it
        self.show_tokens = show_tokens
        self.parser = parser
        self.stop_word: str | None = None  # the stop string that ended the text
        self.final_id: int | None = None  # the token that ended it
        self.n_generated = 0
        self.n_reasoning = 0
        self.logprob = 0.0  # of the whole text, where log-probabilities are asked for
        self.processed: int | None = None
        self.tell_progress = False
        self.stop_after_ms: float | None = None  # of generating: then it ends at the next line break
        self.has_new_line = False
        self.finish: str | None = None
        self.reason: FinishReason | None = None
        self.error: str | None = None
        self.out_of_memory = self.unmet = False
        self.timings = Timings(n_batch=request.n_batch)
        self.first_at = self.last_at = 0.0
        self._pending: list[tuple[Token, int, int]] = []  # token, start and end of its text
        self._made = len(prefix)  # characters out of the detokenizer
        self._sent = len(prefix)
        self._told: int | None = None  # progress of the prompt

    @property
    def mean_logprob(self) -> float:
        """Per token, of choices whose log-probabilities are asked for."""
        return self.logprob / max(self.n_generated, 1)

    def feed(self, emission: StepOutput) -> Piece | None:
        """The piece that this emission completes, if any. Sets `finish` at the end."""
        reason = emission.finish
        if emission.timings is not None:
            self.timings = emission.timings
        tokens = emission.tokens
        if not tokens and reason is None:
            self.processed = emission.processed
            progress = self._progress(emission.processed)
            return (
                Piece("", [], None if self.parser is None else ParsedOutput(), progress) if progress else None
            )
        progress = self._progress(len(self.request.prompt)) if self.tell_progress and tokens else []
        self.n_generated += len(tokens)
        self.logprob += sum(token.logprob for token in tokens if token.logprob is not None)
        if reason is FinishReason.STOP and tokens and tokens[-1].id in self.final_ids:
            self.final_id = tokens[-1].id
            tokens = tokens[:-1]
        text, stopped = self._text_of(tokens), False
        if reason is not None:
            text += self._flushed()
        if self.stop is not None:
            text, self.stop_word = self.stop.push(text)
            stopped = self.stop_word is not None
            if reason is not None and not stopped:
                text += self.stop.flush()
        if "\n" in text:
            text = self._line_break(text, ended=stopped or reason is not None)
        cut = stopped or self.finish is not None
        if stopped:
            self.finish, self.reason = "stop", FinishReason.STOP
            self.close()
        elif reason is not None:
            self.finish, self.reason = _FINISH.get(reason, "error"), reason
            self.error, self.out_of_memory = emission.error, emission.out_of_memory
            self.unmet = emission.unmet
            if emission.timings is None:
                self.close()
        elif self.finish is not None:
            self.close()
        elif not text and not self._pending and not progress:
            self._split("", len(tokens))
            return None
        shown = self._shown(text, cut=cut, all=reason is not None)
        return Piece(text, shown, self._split(text, len(tokens)), progress)

    def _progress(self, processed: int | None) -> list[Progress]:
        """News of the prompt: first of all what was cached."""
        if not self.tell_progress or processed is None:
            return []
        told: list[Progress] = []
        total, cached = len(self.request.prompt), self.timings.cached_n
        if self._told is None:
            self._told = cached
            told.append(Progress(total, cached, cached, 0.0))
        if processed > self._told:
            self._told = processed
            told.append(Progress(total, cached, processed, self.timings.prompt_ms))
        return told

    def _line_break(self, text: str, ended: bool) -> str:
        """Note it; where the time is over, the text ends there."""
        limit = None if ended else self.stop_after_ms
        if limit is not None and self.has_new_line and (time.monotonic() - self.first_at) * 1000 > limit:
            self.finish, self.reason = "length", FinishReason.LENGTH
            return text[: text.index("\n") + 1]
        self.has_new_line = True
        return text

    def _split(self, text: str, n_tokens: int) -> ParsedOutput | None:
        """The text's parts; at the end, what the parser held back as well."""
        parser = self.parser
        if parser is None:
            return None
        before = parser.reasoning
        parts = parser.push(text) if text else ParsedOutput()
        if before or parser.reasoning or parts.reasoning:
            self.n_reasoning += n_tokens
        if self.finish is not None:
            parts = merge_parsed((parts, parser.flush()))
            if self.finish == "stop" and parser.has_calls:
                self.finish = "tool_calls"
        return parts

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

    def _flushed(self) -> str:
        """A broken character at the end."""
        text = self.detokenizer.flush()
        self._made += len(text)
        return text

    def _shown(self, text: str, cut: bool, all: bool) -> list[Shown]:
        """The tokens whose text is out: the others wait. `cut`: no more of them follow."""
        self._sent += len(text)
        if not self._pending:
            return []
        n = 0
        for _, start, end in self._pending:
            # The last token before a stop string may be shown in part.
            if end > self._sent and not (cut and start < self._sent) and (cut or not all):
                break
            n += 1
        shown = [Shown(token, start) for token, start, _ in self._pending[:n]]
        del self._pending[:n]
        return shown

    def so_far(self) -> Timings:
        """What it cost until now."""
        if self.finish is not None or not self.first_at:
            return self.timings
        ms = (time.monotonic() - self.first_at) * 1000
        return msgspec.structs.replace(self.timings, predicted_n=self.n_generated, predicted_ms=ms)

    def close(self) -> None:
        """Timings of a session that we ended: the engine told only those of its first token."""
        self.timings.predicted_n = self.n_generated
        if self.first_at:
            self.timings.predicted_ms = (time.monotonic() - self.first_at) * 1000
