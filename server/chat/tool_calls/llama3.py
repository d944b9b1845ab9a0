"""Llama 3.1 to 3.3: the answer is `{"name": …, "parameters": …}`, maybe behind `<|python_tag|>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.text_reader import NotThis, Openers, Reader, Reading
from server.chat.tool_calls.bare_calls import BareReader, bare_grammar
from server.chat.tool_calls.family import Family, Offer, arguments_rules, one_of
from server.chat.tool_calls.grammar import Words, object_of, quoted
from server.chat.tool_calls.json_calls import JsonForm, call_rules
from server.chat.tool_calls.tool import Tool
from server.input.strict_schema import closed

_TAG = "<|python_tag|>"
_FORM = JsonForm("", "", arguments_key="parameters")


def _call_schema(tool: Tool) -> dict[str, Any]:
    return object_of({"name": {"const": tool.name}, "parameters": closed(tool.schema)})


class Llama3Reader(BareReader):
    def __init__(self, *args: Any) -> None:
        self.openers = Openers([_TAG])
        super().__init__(*args)

    def whole(self) -> Reading[None]:
        if (yield from self.after_space()) != "{":
            raise NotThis
        yield from self.call_sequence()

    def rest(self) -> Reading[None]:
        while True:
            opener = yield from self.until(self.openers, self.say)
            yield from self.attempt(opener, self.whole())


class Llama3(Family):
    name = "llama3"
    marks = (_TAG,)

    def detects(self, source: str) -> bool:
        return "<|start_header_id|>" in source and '"parameters": ' in source

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return Llama3Reader(offer.names, new_id, offer.limit)

    def grammar(self, offer: Offer, words: Words) -> str:
        more = f"({quoted('; ')} call)*" if offer.parallel else ""
        rules = [f"calls: call {more}", one_of("call", offer)]
        rules += [*call_rules(_FORM, offer), *arguments_rules(offer)]
        return bare_grammar(offer, "name", rules, _call_schema)

    def example(self) -> str:
        return '{"name": "tool name", "parameters": {"argument name": "value"}}'
