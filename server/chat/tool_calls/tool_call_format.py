"""The interface of tool-call formats: markers, a parser of outputs, a grammar."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import ConfigError
from engine.types import Constraint
from server.chat.request import Tool
from server.chat.streaming_parser import MarkerSearch, Parsing, StreamingParser, UnexpectedText
from server.chat.tool_calls.grammar import GrammarTerminals, answer_rule, quoted, strict_json_rule
from server.chat.tool_calls.rendered_calls import RenderedCalls

ANY_TEXT = r"/(?s:.*)/"


@dataclass(frozen=True)
class ToolOptions:
    """The tools of a request that may be called.

    required: at least one must be called. parallel: several may be. answer: the constraint on the content if
    none is called, of a kind that `answer_rule` supports.
    """

    tools: tuple[Tool, ...]
    required: bool = False
    parallel: bool = True
    answer: Constraint | None = None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.tools)

    @property
    def limit(self) -> int | None:
        """The maximum number of calls; None: no limit."""
        return None if self.parallel else 1


@dataclass(frozen=True)
class CallFrame:
    """The frame around calls: `opener` `first` call (`again` call)* `last`.

    opener: the marker that a parser looks for.
    """

    opener: str
    first: str = ""
    again: str = ""
    last: str = ""

    def rule(self, options: ToolOptions, terminals: GrammarTerminals) -> str:
        """The rule `calls`, for what follows the opener; the rule `call` is one call."""
        more = f"({terminals(self.again)} call)*" if options.parallel else ""
        return f"calls: {terminals(self.first)} call {more} {terminals(self.last)}"

    def grammar(self, rules: Sequence[str], options: ToolOptions, terminals: GrammarTerminals) -> str:
        """A grammar of outputs. rules: `call_<i>` for each tool, and further ones."""
        start = start_rules(options, terminals, self.opener, "calls")
        return join_rules([*start, self.rule(options, terminals), alternatives("call", options), *rules])

    def written(self, calls: Iterable[str]) -> str:
        """Calls with the frame around them."""
        return self.opener + self.first + self.again.join(calls) + self.last

    def ending_as(self, known: CallFrame) -> CallFrame:
        """The frame without the text with which a template ends the turn after the last known marker."""
        marker = pieces_of(known.last)[-1:]
        if not marker or marker[0] not in self.last:
            return self
        return replace(self, last=self.last[: self.last.rindex(marker[0]) + len(marker[0])])

    @property
    def closers(self) -> list[str]:
        """What may follow a call, piece by piece."""
        return pieces_of(self.last)


def pieces_of(text: str) -> list[str]:
    """The markers in a text; the white space between them may vary."""
    return [piece for piece in re.split(r"\s*\n\s*|(?<=>)\s*(?=<)", text.strip()) if piece]


class FramedCallParser(StreamingParser):
    """Reads calls in a frame; the first call follows both openers."""

    def __init__(self, frame: CallFrame, *args: Any) -> None:
        self.section, self.opener = frame.opener, frame.first.strip()
        self.openers = MarkerSearch([self.section, self.opener])
        super().__init__(*args)

    def read(self) -> Parsing[None]:
        while True:
            opener = yield from self.until(self.openers, self.emit)
            in_section = bool(self.opener) and opener == self.section
            yield from self.attempt(opener, self.first_call() if in_section else self.call())

    def first_call(self) -> Parsing[None]:
        """Read the first call, after the marker of the section."""
        if not (yield from self.accept(self.opener)):
            raise UnexpectedText
        yield from self.call()

    @abstractmethod
    def call(self) -> Parsing[None]:
        """Read a call, after the opener."""


class UnsupportedSchema(Exception):
    """The format has no grammar for such a schema."""


class ToolCallFormat(ABC):
    """The format in which certain models call tools."""

    name: str
    template_has: tuple[str, ...] = ()  # all of them are in a chat template that uses the format
    template_lacks: tuple[str, ...] = ()  # and none of these
    short_ids = False  # call ids have nine characters
    grammar_has_reasoning = False  # its grammars cover the reasoning before the answer

    def detects(self, source: str) -> bool:
        """Whether a chat template, given as source, uses this format."""
        texts, others = self.template_has, self.template_lacks
        return bool(texts) and all(text in source for text in texts) and not any(t in source for t in others)

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """Texts of the format that may be single tokens of the vocabulary."""

    @abstractmethod
    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        """A parser of one output. new_id: generates ids of calls."""

    @abstractmethod
    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str | None:
        """A grammar (Lark) of outputs whose calls have valid arguments. Raises UnsupportedSchema.

        None: no call is required, and the format cannot constrain optional calls.
        """

    @abstractmethod
    def example(self) -> str:
        """An example of a call, for models whose template does not describe the format."""

    def fitted(self, calls: RenderedCalls) -> ToolCallFormat:
        """The format with the white space that a template writes."""
        return self


class WholeAnswerFormat(ToolCallFormat):
    """A format with its own way to write reasoning and content."""

    @abstractmethod
    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser:
        """A parser of the whole output. options: None: no tool may be called. raw: reasoning stays in the
        content.
        """

    @abstractmethod
    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str:
        """A grammar around `answer`, the rule for the content."""

    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        return self.new_answer_parser(options, new_id, "", False)


class WritableFormat(ToolCallFormat):
    """A format that also writes calls, for templates that do not render them."""

    @abstractmethod
    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls in the format. calls: names, and arguments as JSON."""

    def example(self) -> str:
        return self.written([("tool name", '{"argument name": "value"}')])


def arguments_rules(options: ToolOptions) -> list[str]:
    """A rule `arguments_<i>` for each tool."""
    return [f"arguments_{i}: {schema_rule(tool.schema, tool)}" for i, tool in enumerate(options.tools)]


def schema_rule(schema: Mapping[str, Any], tool: Tool) -> str:
    """A rule that matches what is valid for a tool's schema. Raises UnsupportedSchema."""
    try:
        return strict_json_rule(schema)
    except ConfigError as error:
        raise UnsupportedSchema(f"the schema of '{tool.name}' is not supported ({error})") from None


def alternatives(rule: str, options: ToolOptions) -> str:
    """The rule `<rule>` that matches any of `<rule>_<i>`, one for each tool."""
    return f"{rule}: " + " | ".join(f"{rule}_{i}" for i in range(len(options.tools)))


def start_rules(options: ToolOptions, terminals: GrammarTerminals, opener: str, calls: str) -> list[str]:
    """The start of an output grammar. calls: name of the rule for what follows the opener."""
    if options.required:  # after reasoning most models write an empty line
        return [f"start: SPACE? {terminals(opener)} {calls}", r"SPACE: /[ \n]{1,4}/"]
    if options.answer is not None:
        return [f"start: answer | {terminals(opener)} {calls}", f"answer: {answer_rule(options.answer)}"]
    if (token := terminals.first_token(opener)) is not None:
        # Text is any other token, including special tokens of the format.
        id, rest = terminals.tokens[token], terminals(opener.partition(token)[2])
        return [f"start: other* | other* <[{id}]> {rest} {calls}", f"other: <[^{id}]>"]
    return [f"start: TEXT | head {calls}", *text_until("head", opener, terminals), f"TEXT: {ANY_TEXT}"]


def text_until(rule: str, marker: str, terminals: GrammarTerminals) -> list[str]:
    """A rule for any text up to and including the first such marker. Needs the terminal TEXT."""
    if marker in terminals.tokens:  # which no text contains
        return [f"{rule}: TEXT {terminals(marker)}"]
    return [f"{rule}[lazy]: TEXT {quoted(marker)}"]


def join_rules(rules: list[str]) -> str:
    return "\n".join(rules) + "\n"
