"""Reasoning before an answer: which marks a model puts around it, and how it is split off."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from server.chat.parser import OutputParser, ParsedOutput, merge_parsed
from server.chat.streaming_parser import SPACE, EndOfText, MarkerSearch, Parsing, StreamingParser

_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class ReasoningMarkers:
    """What begins and ends a block of reasoning.

    fixed: only where the prompt ends with `start`. within: other text that a template with these marks has.
    """

    start: str
    end: str
    fixed: bool = False
    within: str = ""


# The first whose end is in the template or, spelled as one token, in the vocabulary.
KNOWN_MARKERS = (
    ReasoningMarkers("<think>", "</think>"),
    ReasoningMarkers("[THINK]", "[/THINK]"),
    ReasoningMarkers("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningMarkers("<seed:think>", "</seed:think>"),
    ReasoningMarkers("<mm:think>", "</mm:think>"),
    ReasoningMarkers("<think:opensource>", "</think:opensource>"),
    ReasoningMarkers("<|channel>thought\n", "<channel|>"),
    ReasoningMarkers("<thought>", "</thought>"),
    ReasoningMarkers("<reasoning>", "</reasoning>"),
    ReasoningMarkers("<|begin_of_thought|>", "<|end_of_thought|>"),
    ReasoningMarkers("<|channel|>analysis<|message|>", "<|end|>", within="<|channel|>"),
    ReasoningMarkers("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", fixed=True),
)


def find_reasoning_markers(source: str, is_token: Callable[[str], bool]) -> ReasoningMarkers | None:
    """The marks of a model, by its chat template, or else by the tokens that it has for them."""
    for markers in KNOWN_MARKERS:
        if markers.end in source and markers.within in source:
            return markers
    found = (
        markers
        for markers in KNOWN_MARKERS
        if not markers.fixed and is_token(markers.start) and is_token(markers.end)
    )
    return next(found, None)


class ReasoningParser(StreamingParser):
    """Splits off a block of reasoning that the answer begins with.

    opened: the prompt has begun it. raw: nothing is left out, neither marks nor white space.
    """

    def __init__(self, markers: ReasoningMarkers, opened: bool, raw: bool = False) -> None:
        self.markers, self.opened, self.raw = markers, opened, raw
        self._end = MarkerSearch([markers.end])
        self._trailing = ""
        super().__init__()

    def emit(self, text: str) -> None:
        self._content.append(text)

    def think(self, text: str) -> None:
        if self.raw:
            self._reasoning.append(text)
            return
        text = self._trailing + text
        kept = text.rstrip(SPACE)
        self._trailing = text[len(kept) :]
        self._reasoning.append(kept)

    def read(self) -> Parsing[None]:
        self.reasoning = self.opened
        if not self.opened:
            space = ""
            try:
                while True:
                    character = yield from self.next()
                    if character not in SPACE:
                        break
                    space += character
            except EndOfText:
                self.emit(space)
                raise
            self.unread(character)
            self.reasoning = yield from self.word(self.markers.start)
            if not self.reasoning:
                self.emit(space)
            elif self.raw:
                self.think(space + self.markers.start)
        if self.reasoning:
            yield from self.block()
        while True:
            self._free = (_NOTHING, self.emit)
            self.emit((yield from self.next()))

    def block(self) -> Parsing[None]:
        if not self.raw:
            yield from self.word(self.markers.start)  # some write again what the prompt has already
            self.unread((yield from self.after_space()))
        yield from self.until(self._end, self.think)
        self.reasoning = False
        if self.raw:
            self.think(self.markers.end)
        else:
            self.unread((yield from self.after_space()))


class ReasoningThenCallsParser:
    """An OutputParser of two: reasoning is split off, and the rest read for calls of tools.

    raw: reasoning is left in the content.
    """

    def __init__(self, first: ReasoningParser, then: OutputParser | None, raw: bool = False) -> None:
        self.first, self.then, self.raw = first, then, raw

    @property
    def reasoning(self) -> bool:
        return self.first.reasoning

    @property
    def has_calls(self) -> bool:
        return self.then is not None and self.then.has_calls

    def push(self, text: str) -> ParsedOutput:
        return self._rest(self.first.push(text), flush=False)

    def flush(self) -> ParsedOutput:
        return self._rest(self.first.flush(), flush=True)

    def _rest(self, parts: ParsedOutput, flush: bool) -> ParsedOutput:
        content, reasoning, tools = parts
        if self.then is not None:
            found = self.then.push(content) if content else ParsedOutput()
            content, _, tools = merge_parsed((found, self.then.flush())) if flush else found
        return (
            ParsedOutput(reasoning + content, "", tools)
            if self.raw
            else ParsedOutput(content, reasoning, tools)
        )
