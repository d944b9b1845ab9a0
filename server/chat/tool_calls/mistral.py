"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": …, "id": …}]`, later `[TOOL_CALLS]name[ARGS]{…}`."""

from __future__ import annotations

from collections.abc import Callable

from server.chat.streaming_parser import Parsing, StreamingParser
from server.chat.tool_calls.json_calls import JsonSyntax, JsonToolCallFormat
from server.chat.tool_calls.named_calls import NamedCallParser, NamedSyntax, NamedToolCallFormat
from server.chat.tool_calls.tool_call_format import ToolOptions

_OPENER = "[TOOL_CALLS]"
_NAMED = NamedSyntax(_OPENER, "[ARGS]", optional="[CALL_ID]")


class MistralCallParser(NamedCallParser):
    """Both variants: fine-tuned models mix them."""

    def call(self) -> Parsing[None]:
        character = yield from self.after_space()
        if character == "[":
            yield from self.call_list()
        else:
            self.unread(character)
            yield from super().call()


class MistralListFormat(JsonToolCallFormat):
    """Tokenizers up to version 7."""

    name = "mistral"
    short_ids = True
    syntax = JsonSyntax(_OPENER, "", listed=True, after=r'", \"id\": \"" /[a-zA-Z0-9]{9}/ "\""')

    def detects(self, source: str) -> bool:
        return _OPENER in source and "[ARGS]" not in source

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MistralCallParser(_NAMED, options.names, new_id, options.limit)


class MistralNamedFormat(NamedToolCallFormat):
    """Tokenizers from version 11 on."""

    name = "mistral-named"
    short_ids = True
    syntax = _NAMED

    def detects(self, source: str) -> bool:
        return _OPENER in source and "[ARGS]" in source

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return MistralCallParser(_NAMED, options.names, new_id, options.limit)
