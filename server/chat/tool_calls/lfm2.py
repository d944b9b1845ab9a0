"""LFM2: a list of calls in Python's syntax, `<|tool_call_start|>[name(key='text', other=[1, True])]`."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from typing import Any

from engine.exact_json import loads
from server.chat.streaming_parser import SPACE, MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, quoted, repeated
from server.chat.tool_calls.python_values import python_as_json, unescape
from server.chat.tool_calls.schema_rules import MAX_DEPTH, BracketRules
from server.chat.tool_calls.tool_call_format import CallFrame, ToolOptions, WritableFormat

MAX_NAME = 256
_WORD_CHARACTERS = string.ascii_letters + string.digits + "+-._"
_FRAME = CallFrame("<|tool_call_start|>", "[", ", ", "]<|tool_call_end|>")


class PythonCallParser(StreamingParser):
    """Reads a list of calls after each opener."""

    def __init__(self, *args: Any) -> None:
        self.openers = MarkerSearch([_FRAME.opener])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            yield from self.attempt(opener, self.calls())

    def calls(self) -> Parsing[None]:
        listed = yield from self.accept("[")
        yield from self.call()
        while listed and (yield from self.after_space_or_comma()) != "]":
            yield from self.call()
        if listed:
            yield from self.next()
        yield from self.accept("<|tool_call_end|>")

    def after_space_or_comma(self) -> Parsing[str]:
        """The next character other than white space and commas, without consuming it."""
        while (character := (yield from self.next())) in SPACE + ",":
            pass
        self.unread(character)
        return character

    def call(self) -> Parsing[None]:
        self.begin_call((yield from self.name("(")))
        self.emit_arguments("{")
        comma = ""
        while (yield from self.after_space_or_comma()) != ")":
            key = yield from self.name("=")
            self.emit_arguments(f"{comma}{json.dumps(key)}: ")
            yield from self.value_of(0)
            comma = ", "
        yield from self.next()
        self.emit_arguments("}")

    def name(self, end: str) -> Parsing[str]:
        """Read a name and the character that ends it."""
        name = ""
        character = yield from self.after_space()
        while character != end:
            if len(name) > MAX_NAME or character in SPACE:
                raise UnexpectedText
            name += character
            character = yield from self.next()
        return name

    def value_of(self, depth: int) -> Parsing[None]:
        if depth > MAX_DEPTH:
            raise UnexpectedText
        character = yield from self.after_space()
        if character in "'\"":
            yield from self.text(character)
        elif character in "[(":
            yield from self.items("]" if character == "[" else ")", depth)
        elif character == "{":
            yield from self.pairs(depth)
        else:
            yield from self.word(character)

    def items(self, end: str, depth: int) -> Parsing[None]:
        self.emit_arguments("[")
        comma = ""
        while (yield from self.after_space_or_comma()) != end:
            self.emit_arguments(comma)
            yield from self.value_of(depth + 1)
            comma = ", "
        yield from self.next()
        self.emit_arguments("]")

    def pairs(self, depth: int) -> Parsing[None]:
        self.emit_arguments("{")
        comma = ""
        while (yield from self.after_space_or_comma()) != "}":
            quote = yield from self.next()
            if quote not in "'\"":
                raise UnexpectedText
            self.emit_arguments(comma)
            yield from self.text(quote)
            if (yield from self.after_space()) != ":":
                raise UnexpectedText
            self.emit_arguments(": ")
            yield from self.value_of(depth + 1)
            comma = ", "
        yield from self.next()
        self.emit_arguments("}")

    def text(self, quote: str) -> Parsing[None]:
        """Read a string after the opening quote. Characters are emitted as they arrive, escapes once they are
        complete.

        One of LFM2's templates shows models quotes without escapes, so what follows a quote decides whether
        it closes.
        """
        self.emit_arguments('"')
        while True:
            character = yield from self.next()
            if character == quote and (yield from self.closes()):
                break
            if character == "\\":
                character = yield from self.escape()
            self.emit_text(character)
        self.emit_arguments('"')

    def closes(self) -> Parsing[bool]:
        """Whether the text after a quote, which is not consumed, may follow a string."""
        space = ""
        while (character := (yield from self.next())) in SPACE:
            space += character
        self.unread(space + character)
        return character in ",:)]}"

    def escape(self) -> Parsing[str]:
        kind = yield from self.next()
        digits = ""
        for _ in range({"x": 2, "u": 4, "U": 8}.get(kind, 0)):
            digits += yield from self.next()
        if kind == "u" and digits[:1] in "dD" and digits[1:2] in "89abAB" and (yield from self.accept("\\u")):
            for _ in range(4):  # the other half of a character
                digits += "\\u" * (len(digits) == 4) + (yield from self.next())
        return unescape(f"\\{kind}{digits}")

    def word(self, character: str) -> Parsing[None]:
        """Read a number, True, False or None."""
        word = ""
        while character in _WORD_CHARACTERS and len(word) < MAX_NAME:
            word += character
            character = yield from self.next()
        self.unread(character)
        value = python_as_json(word)
        if value is None:
            raise UnexpectedText
        self.emit_arguments(value)


class PythonRules(BracketRules):
    """Strings in quotes of either kind, and the words of Python or JSON."""

    words = (("True", "true"), ("False", "false"), ("None", "null"))

    def key(self, name: str) -> str:
        if self._depth:
            return f"{self.text_literal(name)} {quoted(': ')}"
        if not name.isidentifier():
            raise self.unsupported(f"has the argument {name!r}, which cannot be written")
        return quoted(f"{name}=")

    def any_key(self) -> str:
        return f"{self.text(None, None)} {quoted(': ')}"

    def text(self, shortest: int | None, longest: int | None) -> str:
        count = repeated(shortest, longest)
        return (
            rf"""(/"([^"\\\x00-\x1f]|\\["\\\/bfnrt]){count}"/ | /'([^'\\\x00-\x1f]|\\['"\\nrt]){count}'/)"""
        )

    def text_literal(self, value: str) -> str:
        return self._any_of(
            [quoted(text) for text in dict.fromkeys((json.dumps(value, ensure_ascii=False), _quoted(value)))]
        )


class Lfm2Format(WritableFormat):
    name = "lfm2"
    markers = (_FRAME.opener, "<|tool_call_end|>")

    def detects(self, source: str) -> bool:
        """Whether a template uses this format; some of LFM2's templates do not render calls."""
        return any(
            text in source for text in ("<|tool_call_start|>", "<|tool_list_start|>", "List of tools: [")
        )

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return PythonCallParser(options.names, new_id, options.limit)

    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        rules: list[str] = []
        for i, tool in enumerate(options.tools):
            arguments = PythonRules(f"arguments_{i}", tool, terminals)
            call = f"{terminals(tool.name + '(')} {arguments.arguments()} {terminals(')')}"
            rules += [f"call_{i}: {call}", *arguments.rules]
        return _FRAME.grammar(rules, options, terminals)

    def example(self) -> str:
        return f"{_FRAME.opener}[tool_name(argument_name='value')]<|tool_call_end|>"

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        bodies = (
            f"{name}({', '.join(f'{key}={_literal(value)}' for key, value in loads(arguments).items())})"
            for name, arguments in calls
        )
        return _FRAME.written(bodies)


def _literal(value: Any) -> str:
    """A value in Python's syntax. Unlike `repr`, it keeps all characters of strings."""
    match value:
        case str():
            return _quoted(value)
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{_quoted(key)}: {_literal(item)}' for key, item in value.items())}}}"
    return repr(value)


def _quoted(text: str) -> str:
    double = json.dumps(text, ensure_ascii=False)
    if "'" in text:
        return double
    return "'" + double[1:-1].replace('\\"', '"') + "'"
