"""Reasoning before an answer: the markers around it, and how it is split off."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.types import Reasoning
from server.chat.request import ReasoningOptions
from server.chat.streaming_parser import EndOfText, MarkerSearch, Parsing, StreamingParser

_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class ReasoningMarkers:
    """The markers that begin and end a block of reasoning.

    only_opened: the model never writes `start`: there is reasoning only if the prompt ends with it.
    template_has: further text by which templates with these markers are recognized.
    """

    start: str
    end: str
    only_opened: bool = False
    template_has: str = ""


# In this order: the first whose end is in the template or, as single tokens, in the vocabulary applies.
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
    ReasoningMarkers("<|channel|>analysis<|message|>", "<|end|>", template_has="<|channel|>"),
    ReasoningMarkers("<|inner_prefix|>", "<|inner_suffix|>"),
    ReasoningMarkers("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ReasoningMarkers("<|think|>", "<|end|>", template_has="<|tool_call:args|>"),
    ReasoningMarkers("to=self<|message|>", "<|eom|>", template_has=" to=self<|message|>"),
    ReasoningMarkers("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", only_opened=True),
)


def find_reasoning_markers(source: str, is_token: Callable[[str], bool]) -> ReasoningMarkers | None:
    """A model's markers: those in its chat template, or else those that are tokens of its vocabulary."""
    for markers in KNOWN_MARKERS:
        if markers.end in source and markers.template_has in source:
            return markers
    for markers in KNOWN_MARKERS:
        if not markers.only_opened and is_token(markers.start) and is_token(markers.end):
            return markers
    return None


def reasoning_block(
    markers: ReasoningMarkers, options: ReasoningOptions, opened: bool, tokenizer: Any
) -> Reasoning:
    """How the engine limits and recognizes a block. opened: the prompt ends inside it."""
    budget = 0 if options.enabled is False else options.budget
    start, end = (_tokens_within(text.strip(), tokenizer) for text in (markers.start, markers.end))
    return Reasoning(start=start, end=end, budget=budget, opened=opened)


def _tokens_within(text: str, tokenizer: Any) -> tuple[int, ...]:
    """The tokens of a text inside another: at the very beginning, some vocabularies add a space."""
    line, whole = (tokenizer.encode(t, add_special=False, parse_special=True) for t in ("\n", f"\n{text}"))
    if whole[: len(line)] == line:
        return tuple(whole[len(line) :])
    return tuple(tokenizer.encode(text, add_special=False, parse_special=True))


class ReasoningParser(StreamingParser):
    """Splits off a block of reasoning at the beginning of the output.

    opened: the prompt has already opened the block. raw: markers and white space are part of the reasoning.
    """

    def __init__(self, markers: ReasoningMarkers, opened: bool, raw: bool = False) -> None:
        self.markers, self.opened, self.raw = markers, opened, raw
        self._end = MarkerSearch([markers.end])
        super().__init__()

    def emit(self, text: str) -> None:
        self._content.append(text)

    def emit_reasoning(self, text: str) -> None:
        if self.raw:
            self._reasoning.append(text)
        else:
            super().emit_reasoning(text)

    def read(self) -> Parsing[None]:
        self.reasoning = self.opened
        if not self.opened:
            space = yield from self.leading_space()
            try:
                self.reasoning = yield from self.accept(self.markers.start)
            except EndOfText:  # within the marker, which is content then
                self.unread(space)
                raise
            if not self.reasoning:
                self.emit(space)
            elif self.raw:
                self.emit_reasoning(space + self.markers.start)
        if self.reasoning:
            yield from self.block()
        while True:
            self._free_text = (_NOTHING, self.emit)
            self.emit((yield from self.next()))

    def block(self) -> Parsing[None]:
        if not self.raw:
            yield from self.accept(self.markers.start)  # some models repeat what the prompt ends with
            self.unread((yield from self.after_space()))
        yield from self.until(self._end, self.emit_reasoning)
        self.reasoning = False
        if self.raw:
            self.emit_reasoning(self.markers.end)
        else:
            self.unread((yield from self.after_space()))
