"""GPT-OSS: messages on channels. `analysis` is reasoning, messages to a function are calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from server.chat.streaming_parser import EndOfText, MarkerSearch, Parsing, StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals, answer_rule
from server.chat.tool_calls.tool_call_format import (
    ANY_TEXT,
    ToolOptions,
    WholeAnswerFormat,
    alternatives,
    arguments_rules,
    join_rules,
    text_until,
)

_CHANNEL, _MESSAGE, _START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_TO = re.compile(r"to=functions\.([A-Za-z0-9_.-]+)")
_NAMED_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser(StreamingParser):
    """before: the part of the answer that is already in the prompt, after `<|start|>assistant`."""

    def __init__(self, before: str, raw: bool, *args: Any) -> None:
        self.raw = raw
        self._header_end = MarkerSearch([_MESSAGE])
        self._body_end = MarkerSearch([*_ENDS, _START])
        super().__init__(*args)
        if before:
            self.push(before)
            self._reasoning_space = self._space = ""

    def read(self) -> Parsing[None]:
        while True:
            header: list[str] = []
            try:
                yield from self.until(self._header_end, header.append)
            except EndOfText:
                if not self.n_calls and not any(marker in "".join(header) for marker in (_CHANNEL, _START)):
                    self.emit("".join(header))  # output in no format
                raise
            yield from self.message("".join(header))

    def message(self, header: str) -> Parsing[None]:
        """Read the body of a message and the marker that ends it."""
        called, channel = _TO.search(header), _NAMED_CHANNEL.search(header)
        if called is not None:
            yield from self.attempt(header + _MESSAGE, self.call(called[1]))
        elif channel is not None and channel[1] == "analysis":
            yield from self.analysis(header)
        else:
            yield from self.until(self._body_end, self.emit)

    def analysis(self, header: str) -> Parsing[None]:
        self.reasoning = True
        emit = self.emit if self.raw else self.emit_reasoning
        if self.raw:
            emit(header + _MESSAGE)
        end = yield from self.until(self._body_end, emit)
        if self.raw:
            emit(end)
        self._reasoning_space = ""
        self.reasoning = False

    def call(self, name: str) -> Parsing[None]:
        self.begin_call(name)
        character = yield from self.after_space()
        self.unread(character)
        if character == "<":  # no arguments at all
            self.emit_arguments("{}")
        else:
            yield from self.json(self.emit_arguments)
        yield from self.until(self._body_end, lambda _: None)


class HarmonyFormat(WholeAnswerFormat):
    name = "harmony"
    template_has = (_CHANNEL, _MESSAGE)
    grammar_has_reasoning = True
    markers = (_CHANNEL, _MESSAGE, _START, "<|constrain|>", *_ENDS)

    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser:
        before = prompt.rpartition(_START + "assistant")[2]
        names, limit = (frozenset[str](), None) if options is None else (options.names, options.limit)
        return HarmonyParser(before, raw, names, new_id, limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str | None:
        """Optional analysis, then a call or the answer. None if the answer may be any text."""
        if not options.required and options.answer is None:
            return None
        rules = [alternatives("call", options), *arguments_rules(options)]
        for i, tool in enumerate(options.tools):
            head = f"{_CHANNEL}commentary to=functions.{tool.name} <|constrain|>json{_MESSAGE}"
            rules.append(f"call_{i}: {terminals(head)} arguments_{i}")
        if options.answer is None or options.required:
            return self._whole("call", rules, terminals)
        final = self._final(answer_rule(options.answer), terminals)
        return self._whole("call | final", [*rules, *final], terminals)

    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str:
        return self._whole("final", self._final(answer, terminals), terminals)

    def _final(self, answer: str, terminals: GrammarTerminals) -> list[str]:
        return [f"final: {terminals(f'{_CHANNEL}final{_MESSAGE}')} answer", f"answer: {answer}"]

    def _whole(self, last: str, rules: list[str], terminals: GrammarTerminals) -> str:
        again = terminals(f"{_START}assistant")  # after analysis, which the constraint may not have seen
        return join_rules(
            [
                f"start: (analysis | again)? ({last})",
                f"analysis: {terminals(f'{_CHANNEL}analysis{_MESSAGE}')} analysis_body {again}",
                *text_until("analysis_body", "<|end|>", terminals),
                f"again: {again}",
                f"TEXT: {ANY_TEXT}",
                *rules,
            ]
        )

    def example(self) -> str:
        head = f"{_CHANNEL}commentary to=functions.tool_name <|constrain|>json{_MESSAGE}"
        return head + '{"argument name": "value"}'
