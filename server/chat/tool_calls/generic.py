"""For models not trained to call tools: the answer is `{"tool_calls": [{"name": …, "arguments": …}]}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.text_reader import NotThis, Reader, Reading
from server.chat.tool_calls.bare_calls import BareReader, bare_grammar
from server.chat.tool_calls.family import Family, Offer, arguments_rules, one_of
from server.chat.tool_calls.grammar import Words, object_of, quoted
from server.chat.tool_calls.json_calls import JsonForm, call_rules
from server.chat.tool_calls.tool import Tool
from server.input.strict_schema import closed

_FORM = JsonForm("", "")
_KEY = "tool_calls"


class GenericReader(BareReader):
    def whole(self) -> Reading[None]:
        fenced = yield from self.word("```json")
        if (yield from self.after_space()) != "{":
            raise NotThis
        key = yield from self.key()
        character = yield from self.after_space()
        if key == _KEY and character == "[":
            yield from self.call_list()
        elif key in (_KEY, "tool_call") and character == "{":
            yield from self.json_call()
        else:
            raise NotThis
        yield from self.word("}")
        if fenced:
            yield from self.word("```")


class Generic(Family):
    name = "generic"
    marks = ()

    def detects(self, source: str) -> bool:
        return True

    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        return GenericReader(offer.names, new_id, offer.limit)

    def grammar(self, offer: Offer, words: Words) -> str:
        more = f"({quoted(', ')} call)*" if offer.parallel else ""
        head, tail = quoted(f'{{"{_KEY}": ['), quoted("]}")
        rules = [f"calls: {head} call {more} {tail}", one_of("call", offer)]
        rules += [*call_rules(_FORM, offer), *arguments_rules(offer)]

        def schema(tool: Tool) -> dict[str, Any]:
            call = object_of({"name": {"const": tool.name}, "arguments": closed(tool.schema)})
            return object_of({_KEY: {"type": "array", "items": call, "minItems": 1, "maxItems": 1}})

        return bare_grammar(offer, _KEY, rules, schema)

    def example(self) -> str:
        return '{"tool_calls": [{"name": "tool name", "arguments": {"argument name": "value"}}]}'
