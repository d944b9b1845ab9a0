"""Kimi K2: a section of calls, each `functions.name:index` before the arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from server.chat.streaming_parser import StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.named_calls import NamedCallParser, NamedSyntax, NamedToolCallFormat
from server.chat.tool_calls.rendered_calls import RenderedCalls
from server.chat.tool_calls.tool_call_format import CallFrame, ToolCallFormat, ToolOptions

_BEGIN, _END = "<|tool_call_begin|>", "<|tool_call_end|>"
_INDEX = re.compile(r":\d+$")


class KimiCallParser(NamedCallParser):
    def tool_name(self, name: str) -> str:
        return _INDEX.sub("", name).removeprefix("functions.")


class KimiFormat(NamedToolCallFormat):
    name = "kimi"
    syntax = NamedSyntax(
        CallFrame("<|tool_calls_section_begin|>", _BEGIN, _END + _BEGIN, f"{_END}<|tool_calls_section_end|>"),
        "<|tool_call_argument_begin|>",
    )
    template_has = (syntax.frame.opener,)

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return KimiCallParser(self.syntax, options.names, new_id, options.limit)

    def head_rule(self, name: str, terminals: GrammarTerminals) -> str:
        return f"{terminals(f'functions.{name}:')} /[0-9]{{1,3}}/ {terminals(self.syntax.middle)}"

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        return super().written(
            [(f"functions.{name}:{i}", arguments) for i, (name, arguments) in enumerate(calls)]
        )

    def fitted(self, calls: RenderedCalls) -> ToolCallFormat:
        return self  # the index is part of what precedes the arguments
