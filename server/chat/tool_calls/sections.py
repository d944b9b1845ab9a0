"""Formats whose answers are sections between markers: reasoning, text, calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import EndOfText, MarkerSearch, Parsing, StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals, answer_rule
from server.chat.tool_calls.tool_call_format import ToolOptions, WholeAnswerFormat, join_rules


@dataclass(frozen=True)
class Sections:
    """The markers that open and close each section.

    turn: begins an answer in the prompt. calls: opens the section of calls, which the format reads. more:
    follows reasoning. closers: further markers that end a text.
    """

    turn: str
    reasoning: tuple[str, str]
    text: tuple[str, str]
    calls: str
    more: str = ""
    closers: tuple[str, ...] = ()


class SectionsParser(StreamingParser):
    """before: the part of the answer that is already in the prompt. raw: reasoning stays in the content."""

    def __init__(self, sections: Sections, before: str, raw: bool, *args: Any) -> None:
        self.sections, self.raw = sections, raw
        self.section_openers = MarkerSearch([sections.reasoning[0], sections.text[0], sections.calls])
        super().__init__(*args)
        if before:
            self.push(before)
            self._reasoning_space = self._space = ""

    def read(self) -> Parsing[None]:
        sections, some = self.sections, False
        while True:
            between: list[str] = []
            try:
                opener = yield from self.until(self.section_openers, between.append)
            except EndOfText:
                if not some and not self.n_calls:
                    self.emit("".join(between))  # output in no format
                raise
            some = True
            if opener == sections.reasoning[0]:
                yield from self.reasoning_section()
            elif opener == sections.text[0]:
                yield from self.until(MarkerSearch([sections.text[1], *sections.closers]), self.emit)
            else:
                yield from self.attempt(opener, self.calls())

    def reasoning_section(self) -> Parsing[None]:
        start, end = self.sections.reasoning
        self.reasoning = True
        emit = self.emit if self.raw else self.emit_reasoning
        if self.raw:
            emit(start)
        yield from self.until(MarkerSearch([end]), emit)
        if self.raw:
            emit(end)
        self._reasoning_space = ""
        self.reasoning = False

    @abstractmethod
    def calls(self) -> Parsing[None]:
        """Read the section of calls, after its marker."""


class SectionsFormat(WholeAnswerFormat):
    """Reasoning is a separate section, so the format's grammars begin after it."""

    sections: Sections

    @abstractmethod
    def parser(self, before: str, raw: bool, tools: tuple[Tool, ...], *args: Any) -> StreamingParser:
        """A parser of the section of calls. args: new_id, limit."""

    @abstractmethod
    def call_rules(self, options: ToolOptions, terminals: GrammarTerminals) -> list[str]:
        """The rule `calls` for the section of calls including its marker, and further rules."""

    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser:
        before = prompt.rpartition(self.sections.turn)[2]
        tools, limit = ((), None) if options is None else (options.tools, options.limit)
        return self.parser(before, raw, tools, new_id, limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str | None:
        """The grammar; None if the answer may be any text."""
        if not options.required and options.answer is None:
            return None
        rules = self.call_rules(options, terminals)
        if options.answer is None or options.required:
            return join_rules([f"start: {self._more(terminals)} calls", *rules])
        return join_rules(
            [
                f"start: {self._more(terminals)} (calls | final)",
                *rules,
                *self._final(answer_rule(options.answer), terminals),
            ]
        )

    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str:
        return join_rules([f"start: {self._more(terminals)} final", *self._final(answer, terminals)])

    def _more(self, terminals: GrammarTerminals) -> str:
        """The text between the reasoning and the rest."""
        more = terminals(self.sections.more)
        return f"({more})?" if more else ""

    def _final(self, answer: str, terminals: GrammarTerminals) -> list[str]:
        opener, closer = self.sections.text
        return [f"final: ({terminals(opener)})? answer ({terminals(closer)})?", f"answer: {answer}"]
