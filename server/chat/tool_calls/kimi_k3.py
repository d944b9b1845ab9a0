"""Kimi K3: `<|open|>call tool="name" index="1"<|sep|>` and tags that state the type of each argument."""

from __future__ import annotations

import json
from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.python_values import python_as_json
from server.chat.tool_calls.sections import Sections, SectionsFormat, SectionsParser
from server.chat.tool_calls.tagged_calls import TYPE, TaggedSyntax, argument_rules
from server.chat.tool_calls.tool_call_format import CallFrame, ToolOptions, alternatives

_OPEN, _CLOSE, _SEP, _QUOTE = "<|open|>", "<|close|>", "<|sep|>", '"'


def _tags(name: str) -> tuple[str, str]:
    return f"{_OPEN}{name}{_SEP}", f"{_CLOSE}{name}{_SEP}"


_ARGUMENT_END = _tags("argument")[1]
_SYNTAX = TaggedSyntax(
    CallFrame(_tags("tools")[0]),
    "",
    f'{_OPEN}argument key="',
    f'" type="string"{_SEP}',
    _ARGUMENT_END,
    f'" type="{TYPE}"{_SEP}',
)
_SECTIONS = Sections(
    f'{_OPEN}message role="assistant"{_SEP}', _tags("think"), _tags("response"), _tags("tools")[0]
)


class KimiK3Parser(SectionsParser):
    def calls(self) -> Parsing[None]:
        if not (yield from self.accept(f'{_OPEN}call tool="')):
            raise UnexpectedText
        yield from self.call()
        while (yield from self.accept(f'{_OPEN}call tool="')):
            yield from self.call()
        yield from self.accept(_tags("tools")[1])

    def call(self) -> Parsing[None]:
        self.begin_call((yield from self.short_text('"')))
        yield from self.short_text(_SEP)  # the index
        if (yield from self.accept(f'{_OPEN}json type="object"{_SEP}')):
            yield from self.json(self.emit_arguments)
            yield from self.accept(_tags("json")[1])
        else:
            yield from self.tagged()
        yield from self.accept(_tags("call")[1])

    def tagged(self) -> Parsing[None]:
        before = "{"
        while (yield from self.accept(f'{_OPEN}argument key="')):
            key = yield from self.short_text('" type="')
            kind = yield from self.short_text('"' + _SEP)
            self.emit_arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            if kind == "string":
                yield from self.text_argument(MarkerSearch([_ARGUMENT_END]))
            else:
                pieces: list[str] = []
                yield from self.until(MarkerSearch([_ARGUMENT_END]), pieces.append)
                value = "".join(pieces)
                self.emit_arguments(python_as_json(value.strip()) or json.dumps(value, ensure_ascii=False))
        self.emit_arguments("{}" if before == "{" else "}")


class KimiK3Format(SectionsFormat):
    name = "kimi-k3"
    template_has = ("Kimi K3", _OPEN)
    sections = _SECTIONS
    markers = (_OPEN, _CLOSE, _SEP)

    def parser(self, before: str, raw: bool, tools: tuple[Tool, ...], *args: Any) -> StreamingParser:
        return KimiK3Parser(_SECTIONS, before, raw, [tool.name for tool in tools], *args)

    def call_rules(self, options: ToolOptions, terminals: GrammarTerminals) -> list[str]:
        opener, closer = _tags("tools")
        response = terminals("".join(_tags("response")))
        more = "call*" if options.parallel else ""
        rules = [
            f"calls: ({response})? {terminals(opener)} call {more} {terminals(closer)}",
            alternatives("call", options),
        ]
        for i, tool, arguments, more_rules in argument_rules(options, _SYNTAX, terminals):
            head, index = terminals(f'{_OPEN}call tool="{tool.name}" index="'), "/[0-9]{1,3}/"
            start, end = f"{head} {index} {terminals(_QUOTE + _SEP)}", terminals(_tags("call")[1])
            rules.append(f"call_{i}: {start} {arguments} {end}")
            rules += more_rules
        return rules

    def example(self) -> str:
        opener, closer = _tags("tools")
        argument = f'{_OPEN}argument key="argument name" type="string"{_SEP}value{_ARGUMENT_END}'
        return f'{opener}{_OPEN}call tool="tool name" index="1"{_SEP}{argument}{_tags("call")[1]}{closer}'
