"""Muse: messages to a recipient; those to a tool hold `<atem:invoke name="…">` with parameters."""

from __future__ import annotations

from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import Parsing, StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.sections import Sections, SectionsFormat, SectionsParser
from server.chat.tool_calls.tagged_calls import TaggedCallParser, TaggedSyntax, argument_rules
from server.chat.tool_calls.tool_call_format import CallFrame, ToolOptions, alternatives

_TURN, _MESSAGE, _MORE, _END = "<|start|>assistant", "<|message|>", "<|eom|>", "<|eot|>"
_OPENER = "<atem:function_calls>"
_SECTIONS = Sections(
    _TURN, (f" to=self{_MESSAGE}", _MORE), (f" to=user{_MESSAGE}", _END), _OPENER, _TURN, (_MORE,)
)
_SYNTAX = TaggedSyntax(
    CallFrame(_OPENER, '\n<atem:invoke name="', "", "</atem:invoke>\n</atem:function_calls>"),
    '">\n',
    '<atem:parameter name="',
    '">',
    "</atem:parameter>\n",
)


class MuseParser(SectionsParser, TaggedCallParser):
    def calls(self) -> Parsing[None]:
        yield from self.first_call()


class MuseFormat(SectionsFormat):
    name = "muse"
    template_has = (_OPENER,)
    sections = _SECTIONS
    markers = (_MESSAGE, _MORE, _END, "<|start|>")

    def parser(self, before: str, raw: bool, tools: tuple[Tool, ...], *args: Any) -> StreamingParser:
        return MuseParser(_SECTIONS, before, raw, _SYNTAX, {tool.name: tool for tool in tools}, *args)

    def call_rules(self, options: ToolOptions, terminals: GrammarTerminals) -> list[str]:
        more = f"({terminals(_MORE + _TURN)} call)*" if options.parallel else ""
        rules = [f"calls: call {more}", alternatives("call", options)]
        for i, tool, arguments, more_rules in argument_rules(options, _SYNTAX, terminals):
            head = f" to={tool.name}{_MESSAGE}{_OPENER}{_SYNTAX.frame.first}{tool.name}{_SYNTAX.name_close}"
            rules.append(f"call_{i}: {terminals(head)} {arguments} {terminals(_SYNTAX.frame.last)}")
            rules += more_rules
        return rules

    def example(self) -> str:
        argument = '<atem:parameter name="argument name">value</atem:parameter>'
        call = f'<atem:invoke name="tool name">\n{argument}\n</atem:invoke>'
        return f" to=tool name{_MESSAGE}{_OPENER}\n{call}\n</atem:function_calls>"
