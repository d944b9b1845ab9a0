"""Solar Open: sections `<|think|>…<|end|>`, `<|content|>…<|end|>`, `<|tool_calls|>…<|calls|>`."""

from __future__ import annotations

from typing import Any

from server.chat.request import Tool
from server.chat.streaming_parser import Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.json_calls import JsonCallParser
from server.chat.tool_calls.sections import Sections, SectionsFormat, SectionsParser
from server.chat.tool_calls.tool_call_format import ToolOptions, alternatives, arguments_rules

_TURN = "<|begin|>assistant"
_BEGIN, _NAME, _ARGUMENTS, _END = (
    "<|tool_call:begin|>",
    "<|tool_call:name|>",
    "<|tool_call:args|>",
    "<|tool_call:end|>",
)
_SECTIONS = Sections(
    _TURN,
    ("<|think|>", "<|end|>"),
    ("<|content|>", "<|end|>"),
    "<|tool_calls|>",
    _TURN,
    ("<|begin|>",),
)


class SolarParser(SectionsParser, JsonCallParser):
    def calls(self) -> Parsing[None]:
        if not (yield from self.accept(_BEGIN)):
            raise UnexpectedText
        yield from self.call()
        while (yield from self.accept(_BEGIN)):
            yield from self.call()
        yield from self.accept("<|calls|>")

    def call(self) -> Parsing[None]:
        yield from self.short_text(_NAME)  # the id that the model invents
        self.begin_call((yield from self.short_text(_ARGUMENTS)).strip())
        yield from self.json(self.emit_arguments)
        yield from self.accept(_END)


class SolarFormat(SectionsFormat):
    name = "solar"
    template_has = (_ARGUMENTS, "<|tool_calls|>")
    sections = _SECTIONS
    markers = (
        *("<|think|>", "<|end|>", "<|content|>", "<|tool_calls|>", "<|calls|>", "<|begin|>"),
        *(_BEGIN, _NAME, _ARGUMENTS, _END),
    )

    def parser(self, before: str, raw: bool, tools: tuple[Tool, ...], *args: Any) -> StreamingParser:
        return SolarParser(_SECTIONS, before, raw, [tool.name for tool in tools], *args)

    def call_rules(self, options: ToolOptions, terminals: GrammarTerminals) -> list[str]:
        more = "call*" if options.parallel else ""
        rules = [
            f"calls: {terminals('<|tool_calls|>')} call {more} {terminals('<|calls|>')}",
            alternatives("call", options),
            *arguments_rules(options),
        ]
        for i, tool in enumerate(options.tools):
            head = f"{terminals(_BEGIN)} /[a-z0-9]{{8,10}}/ {terminals(_NAME + tool.name + _ARGUMENTS)}"
            rules.append(f"call_{i}: {head} arguments_{i} {terminals(_END)}")
        return rules

    def example(self) -> str:
        call = f'{_BEGIN}a1b2c3d4e5{_NAME}tool name{_ARGUMENTS}{{"argument name": "value"}}{_END}'
        return f"<|tool_calls|>{call}<|calls|>"
