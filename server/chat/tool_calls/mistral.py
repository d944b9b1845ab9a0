"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": …, "id": …}]`, later `[TOOL_CALLS]name[ARGS]{…}`."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from server.chat.streaming_parser import Parsing, StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.named_calls import NamedCallParser, NamedSyntax, NamedToolCallFormat
from server.chat.tool_calls.rendered_calls import RenderedCalls
from server.chat.tool_calls.tool_call_format import CallFrame, ToolOptions

_OPENER = "[TOOL_CALLS]"
_NAMED = NamedSyntax(CallFrame(_OPENER, again=_OPENER), "[ARGS]", optional="[CALL_ID]")


class MistralCallParser(NamedCallParser):
    """Accepts both variants, since fine-tuned models mix them."""

    def call(self) -> Parsing[None]:
        character = yield from self.after_space()
        if character == "[":
            yield from self.call_list()
        else:
            self.unread(character)
            yield from super().call()


class MistralListFormat(JsonToolCallFormat):
    """Models with tokenizer version 7 or older."""

    name = "mistral"
    template_has = (_OPENER,)
    template_lacks = ("[ARGS]",)
    short_ids = True
    syntax = JsonSyntax(CallFrame(_OPENER, "[", ", ", "]"), after=r'", \"id\": \"" /[a-zA-Z0-9]{9}/ "\""')

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MistralCallParser(_NAMED, options.names, new_id, options.limit)


class MistralNamedFormat(NamedToolCallFormat):
    """Models with tokenizer version 11 or newer."""

    name = "mistral-named"
    template_has = (_OPENER, "[ARGS]")
    short_ids = True
    syntax = _NAMED
    writes_ids = False

    def fitted(self, calls: RenderedCalls) -> MistralNamedFormat:
        fitted = copy(self)
        fitted.writes_ids = self.syntax.optional in calls.one
        return fitted

    def head_rule(self, name: str, terminals: GrammarTerminals) -> str:
        if not self.writes_ids:
            return super().head_rule(name, terminals)
        id = f"{terminals(self.syntax.optional)} /[a-zA-Z0-9]{{9}}/"
        return f"{terminals(name)} {id} {terminals(self.syntax.middle)}"

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MistralCallParser(_NAMED, options.names, new_id, options.limit)
