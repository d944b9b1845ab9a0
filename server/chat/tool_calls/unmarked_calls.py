"""Calls without a marker before them: an output is a call if it begins like one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from engine.errors import ConfigError
from engine.exact_json import dumps, loads
from server.chat.request import Tool
from server.chat.streaming_parser import Parsing
from server.chat.tool_calls.grammar import answer_rule, strict_json_rule
from server.chat.tool_calls.json_calls import JsonCallParser
from server.chat.tool_calls.tool_call_format import ANY_TEXT, ToolOptions, UnsupportedSchema, join_rules


class UnmarkedCallParser(JsonCallParser):
    """Reads the beginning of an output; subclasses read the rest in `rest`."""

    def read(self) -> Parsing[None]:
        space = yield from self.leading_space()
        character = yield from self.next()
        self.unread(character)
        if character in "{`":
            yield from self.attempt(space, self.whole())
        else:
            self.emit(space)
        yield from self.rest()

    @abstractmethod
    def whole(self) -> Parsing[None]:
        """Read the calls, from the first character on."""

    def rest(self) -> Parsing[None]:
        while True:
            self.emit((yield from self.next()))


def unmarked_grammar(
    options: ToolOptions, first_key: str, rules: list[str], schema: Callable[[Tool], Any]
) -> str:
    """A grammar around the rule `calls`, a whole output that is an object beginning with `first_key`.

    schema: of an output that calls a tool; needed if the answer must be JSON as well.
    """
    if options.answer is not None and options.answer.kind in ("json_schema", "json_object"):
        return join_rules([f"start: {_either(options, schema)}"])
    if options.answer is not None:
        start = ["start: answer | calls", f"answer: {answer_rule(options.answer)}"]
    elif options.required:
        start = ["start: calls"]
    else:
        start = ["start: TEXT | calls", rf'TEXT: {ANY_TEXT} & ~/\{{"{first_key}": (?s:.*)/']
    return join_rules([*start, *rules])


def _either(options: ToolOptions, schema: Callable[[Tool], Any]) -> str:
    """One schema for answer and calls: as alternatives of a grammar they would be ambiguous."""
    assert options.answer is not None
    answer = loads(options.answer.text or '{"type": "object"}')
    schemas = [answer, *(schema(tool) for tool in options.tools)]
    if any('"$ref"' in dumps(part) for part in schemas):
        raise UnsupportedSchema("schemas of tools and answer with references cannot be combined")
    try:
        return strict_json_rule({"anyOf": schemas})
    except ConfigError as error:
        raise UnsupportedSchema(f"the schemas of tools and answer cannot be combined ({error})") from None
