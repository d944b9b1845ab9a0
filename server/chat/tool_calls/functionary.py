"""Functionary 3.1, and Llama 3 where its prompt says so: `<function=name>{…}</function>`; and 3.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, answer_rule, quoted
from server.chat.tool_calls.json_calls import JsonCallParser
from server.chat.tool_calls.named_calls import MAX_NAME, NamedSyntax, NamedToolCallFormat
from server.chat.tool_calls.tool_call_format import (
    ANY_TEXT,
    CallFrame,
    ToolOptions,
    WholeAnswerFormat,
    alternatives,
    arguments_rules,
    join_rules,
    text_until,
)

_AGAIN, _ALL = ">>>", "all\n"


class FunctionaryFormat(NamedToolCallFormat):
    name = "functionary"
    template_has = ("<function=", "</function>")
    template_lacks = ("<parameter=",)
    syntax = NamedSyntax(CallFrame("<function=", again="</function><function=", last="</function>"), ">")


class Functionary32Parser(JsonCallParser):
    """Reads the content for each recipient after `>>>`. opened: the prompt ends with the first."""

    def __init__(self, opened: bool, *args: Any) -> None:
        self.opened = opened
        self.openers = MarkerSearch([_AGAIN])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        if self.opened and not (yield from self.accept(_ALL)):
            yield from self.attempt("", self.call())
        while True:
            opener = yield from self.until(self.openers, self.emit)
            if not (yield from self.accept(_ALL)):
                yield from self.attempt(opener, self.call())

    def call(self) -> Parsing[None]:
        name = ""
        while (character := (yield from self.next())) not in "\n{":
            name += character
            if len(name) > MAX_NAME:
                raise UnexpectedText
        if character == "{":
            self.unread(character)
        self.begin_call(name.strip())
        yield from self.json(self.emit_arguments)


class Functionary32Format(WholeAnswerFormat):
    """3.2: `>>>name`, a new line, arguments; text has the recipient `all`."""

    name = "functionary-v3.2"
    markers = ()

    def detects(self, source: str) -> bool:
        return ">>>all" in source or ">>>${recipient}" in source

    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser:
        names, limit = (frozenset[str](), None) if options is None else (options.names, options.limit)
        return Functionary32Parser(prompt.endswith(_AGAIN), names, new_id, limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        more = f"({quoted(_AGAIN)} call)*" if options.parallel else ""
        rules = [f"calls: call {more}", alternatives("call", options), *arguments_rules(options)]
        for i, tool in enumerate(options.tools):
            rules.append(f"call_{i}: {quoted(f'{tool.name}{chr(10)}')} arguments_{i}")
        if options.required:
            return join_rules(["start: calls", *rules])
        if options.answer is not None:
            answer = f"answer: {answer_rule(options.answer)}"
            return join_rules([f"start: {quoted(_ALL)} answer | calls", answer, *rules])
        text = [f"text: {quoted(_ALL)} TEXT | {quoted(_ALL)} head calls", f"TEXT: {ANY_TEXT}"]
        return join_rules(["start: calls | text", *text, *text_until("head", _AGAIN, terminals), *rules])

    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str:
        return join_rules([f"start: {quoted(_ALL)} answer", f"answer: {answer}"])

    def example(self) -> str:
        return '>>>tool name\n{"argument name": "value"}'
