"""Reasoning before an answer: which marks a model puts around it, and how it is split off."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from server.chat.answer import OutputParser, Parts, joined
from server.chat.text_reader import SPACE, End, Openers, Reader, Reading

_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class Marks:
    """What begins and ends a block of reasoning.

    fixed: only where the prompt ends with `start`. within: other text that a template with these marks has.
    """

    start: str
    end: str
    fixed: bool = False
    within: str = ""


# The first whose end is in the template or, spelled as one token, in the vocabulary.
KNOWN = (
    Marks("<think>", "</think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<mm:think>", "</mm:think>"),
    Marks("<think:opensource>", "</think:opensource>"),
    Marks("<|channel>thought\n", "<channel|>"),
    Marks("<thought>", "</thought>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|channel|>analysis<|message|>", "<|end|>", within="<|channel|>"),
    Marks("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", fixed=True),
)


def find_marks(source: str, is_token: Callable[[str], bool]) -> Marks | None:
    """The marks of a model, by its chat template, or else by the tokens that it has for them."""
    for marks in KNOWN:
        if marks.end in source and marks.within in source:
            return marks
    found = (marks for marks in KNOWN if not marks.fixed and is_token(marks.start) and is_token(marks.end))
    return next(found, None)


class ThinkReader(Reader):
    """Splits off a block of reasoning that the answer begins with.

    opened: the prompt has begun it. raw: nothing is left out, neither marks nor white space.
    """

    def __init__(self, marks: Marks, opened: bool, raw: bool = False) -> None:
        self.marks, self.opened, self.raw = marks, opened, raw
        self._end = Openers([marks.end])
        self._trailing = ""
        super().__init__()

    def say(self, text: str) -> None:
        self._content.append(text)

    def think(self, text: str) -> None:
        if self.raw:
            self._reasoning.append(text)
            return
        text = self._trailing + text
        kept = text.rstrip(SPACE)
        self._trailing = text[len(kept) :]
        self._reasoning.append(kept)

    def read(self) -> Reading[None]:
        self.reasoning = self.opened
        if not self.opened:
            space = ""
            try:
                while True:
                    character = yield from self.next()
                    if character not in SPACE:
                        break
                    space += character
            except End:
                self.say(space)
                raise
            self.unread(character)
            self.reasoning = yield from self.word(self.marks.start)
            if not self.reasoning:
                self.say(space)
            elif self.raw:
                self.think(space + self.marks.start)
        if self.reasoning:
            yield from self.block()
        while True:
            self._free = (_NOTHING, self.say)
            self.say((yield from self.next()))

    def block(self) -> Reading[None]:
        if not self.raw:
            yield from self.word(self.marks.start)  # some write again what the prompt has already
            self.unread((yield from self.after_space()))
        yield from self.until(self._end, self.think)
        self.reasoning = False
        if self.raw:
            self.think(self.marks.end)
        else:
            self.unread((yield from self.after_space()))


class Answer:
    """An OutputParser of two: reasoning is split off, and the rest read for calls of tools.

    raw: reasoning is left in the content.
    """

    def __init__(self, first: ThinkReader, then: OutputParser | None, raw: bool = False) -> None:
        self.first, self.then, self.raw = first, then, raw

    @property
    def reasoning(self) -> bool:
        return self.first.reasoning

    @property
    def has_calls(self) -> bool:
        return self.then is not None and self.then.has_calls

    def push(self, text: str) -> Parts:
        return self._rest(self.first.push(text), flush=False)

    def flush(self) -> Parts:
        return self._rest(self.first.flush(), flush=True)

    def _rest(self, parts: Parts, flush: bool) -> Parts:
        content, reasoning, tools = parts
        if self.then is not None:
            found = self.then.push(content) if content else Parts()
            content, _, tools = joined((found, self.then.flush())) if flush else found
        return Parts(reasoning + content, "", tools) if self.raw else Parts(content, reasoning, tools)
