"""Calls without a mark before them: an answer is a call if it begins like one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from engine.errors import ConfigError
from server.chat.text_reader import SPACE, End, Reading
from server.chat.tool_calls.family import ANY_TEXT, CannotHold, Offer, lark
from server.chat.tool_calls.grammar import answer_rule, json_rule
from server.chat.tool_calls.json_calls import CallReader
from server.chat.tool_calls.tool import Tool


class BareReader(CallReader):
    """Reads what an answer begins with; subclasses read the rest in `rest`."""

    def read(self) -> Reading[None]:
        space = ""
        try:
            while True:
                character = yield from self.next()
                if character not in SPACE:
                    break
                space += character
        except End:
            self.say(space)
            raise
        self.unread(character)
        if character in "{`":
            yield from self.attempt(space, self.whole())
        else:
            self.say(space)
        yield from self.rest()

    def whole(self) -> Reading[None]:
        """The calls, from the first character on."""
        raise NotImplementedError

    def rest(self) -> Reading[None]:
        while True:
            self.say((yield from self.next()))


def bare_grammar(offer: Offer, first_key: str, rules: list[str], schema: Callable[[Tool], Any]) -> str:
    """Around the rule `calls`, which is a whole answer that begins with this key.

    schema: of an answer that calls this tool, for where the answer is JSON in any case.
    """
    if offer.answer is not None and offer.answer.kind in ("json_schema", "json_object"):
        return lark([f"start: {_either(offer, schema)}"])
    if offer.answer is not None:
        start = ["start: answer | calls", f"answer: {answer_rule(offer.answer)}"]
    elif offer.required:
        start = ["start: calls"]
    else:
        start = ["start: TEXT | calls", rf'TEXT: {ANY_TEXT} & ~/\{{"{first_key}": (?s:.*)/']
    return lark([*start, *rules])


def _either(offer: Offer, schema: Callable[[Tool], Any]) -> str:
    """One schema of answer and calls: two that begin alike could not be told from each other."""
    assert offer.answer is not None
    answer = json.loads(offer.answer.text or '{"type": "object"}')
    schemas = [answer, *(schema(tool) for tool in offer.tools)]
    if any('"$ref"' in json.dumps(part) for part in schemas):
        raise CannotHold("schemas of tools and answer with references cannot be combined")
    try:
        return json_rule({"anyOf": schemas})
    except ConfigError as error:
        raise CannotHold(f"the schemas of tools and answer cannot be combined ({error})") from None
