"""What every format of tool calls provides: its markers, a parser of outputs, a grammar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError
from engine.types import Constraint
from server.chat.streaming_parser import StreamingParser
from server.chat.tool_calls.grammar import GrammarTerminals, answer_rule, quoted, strict_json_rule
from server.chat.tool_calls.tool import Tool

ANY_TEXT = r"/(?s:.*)/"


@dataclass(frozen=True)
class ToolOptions:
    """The tools of a request that may be called.

    required: at least one must be. parallel: several may be. answer: the constraint on the content if none is
    called, of a kind that `answer_rule` supports.
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
        """How many calls there may be; None: any number."""
        return None if self.parallel else 1


class UnsupportedSchema(Exception):
    """The format has no grammar for such a schema."""


class ToolCallFormat(ABC):
    """How certain models call tools."""

    name: str
    short_ids = False  # call ids have nine characters
    grammar_has_reasoning = False  # its grammars cover the reasoning before the answer

    @abstractmethod
    def detects(self, source: str) -> bool:
        """Whether a chat template, given as source, uses this format."""

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """Texts of the format that may be single tokens of the vocabulary."""

    @abstractmethod
    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        """A parser of one output. new_id: makes ids of calls."""

    @abstractmethod
    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str | None:
        """A grammar (Lark) of outputs whose calls have valid arguments. Raises UnsupportedSchema.

        None: nothing is required, and the format cannot constrain optional calls.
        """

    @abstractmethod
    def example(self) -> str:
        """A call, to show to models whose template does not describe the format."""

    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser | None:
        """A parser of the whole output, where the format has its own way to write reasoning and content.

        raw: reasoning stays in the content.
        """
        return None

    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str | None:
        """A grammar around `answer`, the rule for the content, where the format encloses the content."""
        return None

    def adapt_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Further changes that templates with this format need."""
        return messages


def arguments_rules(options: ToolOptions) -> list[str]:
    """A rule `arguments_<i>` for each tool."""
    return [f"arguments_{i}: {schema_rule(tool.schema, tool)}" for i, tool in enumerate(options.tools)]


def schema_rule(schema: Mapping[str, Any], tool: Tool) -> str:
    """A rule that matches what is valid for a schema of a tool. Raises UnsupportedSchema."""
    try:
        return strict_json_rule(schema)
    except ConfigError as error:
        raise UnsupportedSchema(f"the schema of '{tool.name}' is not supported ({error})") from None


def alternatives(rule: str, options: ToolOptions) -> str:
    """The rule `<rule>` for any of `<rule>_<i>`, of which there is one for each tool."""
    return f"{rule}: " + " | ".join(f"{rule}_{i}" for i in range(len(options.tools)))


def start_rules(options: ToolOptions, terminals: GrammarTerminals, opener: str, calls: str) -> list[str]:
    """The start of an output grammar. calls: name of the rule for what follows the opener."""
    if options.required:
        return [f"start: {terminals(opener)} {calls}"]
    if options.answer is not None:
        return [f"start: answer | {terminals(opener)} {calls}", f"answer: {answer_rule(options.answer)}"]
    if opener in terminals.tokens:  # then text is any other token, including special tokens of the format
        return [
            f"start: other* | other* {terminals(opener)} {calls}",
            f"other: <[^{terminals.tokens[opener]}]>",
        ]
    return [f"start: TEXT | head {calls}", *text_until("head", opener, terminals), f"TEXT: {ANY_TEXT}"]


def text_until(rule: str, marker: str, terminals: GrammarTerminals) -> list[str]:
    """A rule for any text up to and including the first such marker. Needs the terminal TEXT."""
    if marker in terminals.tokens:  # which no text contains
        return [f"{rule}: TEXT {terminals(marker)}"]
    return [f"{rule}[lazy]: TEXT {quoted(marker)}"]


def join_rules(rules: list[str]) -> str:
    return "\n".join(rules) + "\n"
