"""What every way of calling tools gives: its marks, a reader of answers, a grammar."""

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

    required: at least one has to be. answer: what the content must match if none is; `answer_rule` takes it.
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
        return None if self.parallel else 1


class UnsupportedSchema(Exception):
    """No grammar of this family holds arguments to such a schema."""


class ToolCallFormat(ABC):
    """How the models of one family call tools."""

    name: str
    short_ids = False  # ids of calls have nine characters
    reasons = False  # its grammars have reasoning in them

    @abstractmethod
    def detects(self, source: str) -> bool:
        """Whether a chat template is of this family."""

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """Texts of the format that may be tokens of the vocabulary."""

    @abstractmethod
    def new_parser(self, options: ToolOptions, new_id: Callable[[], str]) -> StreamingParser:
        """A parser of one answer."""

    @abstractmethod
    def grammar(self, options: ToolOptions, terminals: GrammarTerminals) -> str | None:
        """What an answer must match: calls with valid arguments, if it is not only text. Raises CannotHold.

        None: where nothing is required, an answer of this format is not held to anything.
        """

    @abstractmethod
    def example(self) -> str:
        """A call, for models whose template does not tell them how tools are called."""

    def new_answer_parser(
        self, options: ToolOptions | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> StreamingParser | None:
        """A parser of all of an answer, reasoning included, where the format is not text with parts in it."""
        return None

    def answer_grammar(self, answer: str, terminals: GrammarTerminals) -> str | None:
        """Where the content stands inside of something: a grammar around the rule that it must match."""
        return None

    def adapt_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What else the templates of this family want of messages."""
        return messages


def arguments_rules(options: ToolOptions) -> list[str]:
    return [f"arguments_{i}: {schema_rule(tool.schema, tool)}" for i, tool in enumerate(options.tools)]


def schema_rule(schema: Mapping[str, Any], tool: Tool) -> str:
    """A rule for what matches a schema of a tool. Raises CannotHold."""
    try:
        return strict_json_rule(schema)
    except ConfigError as error:
        raise UnsupportedSchema(f"the schema of '{tool.name}' is not supported ({error})") from None


def alternatives(rule: str, options: ToolOptions) -> str:
    return f"{rule}: " + " | ".join(f"{rule}_{i}" for i in range(len(options.tools)))


def start_rules(options: ToolOptions, terminals: GrammarTerminals, opener: str, calls: str) -> list[str]:
    """How an answer begins: `calls` is the name of the rule for what comes behind the opener."""
    if options.required:
        return [f"start: {terminals(opener)} {calls}"]
    if options.answer is not None:
        return [f"start: answer | {terminals(opener)} {calls}", f"answer: {answer_rule(options.answer)}"]
    if opener in terminals.tokens:  # free of it is every other token, those of the format included
        return [
            f"start: other* | other* {terminals(opener)} {calls}",
            f"other: <[^{terminals.tokens[opener]}]>",
        ]
    return [f"start: TEXT | head {calls}", *text_until("head", opener, terminals), f"TEXT: {ANY_TEXT}"]


def text_until(rule: str, marker: str, terminals: GrammarTerminals) -> list[str]:
    """A rule for any text up to the first of this mark, and with it. Needs the terminal TEXT."""
    if marker in terminals.tokens:  # no text has it
        return [f"{rule}: TEXT {terminals(marker)}"]
    return [f"{rule}[lazy]: TEXT {quoted(marker)}"]


def join_rules(rules: list[str]) -> str:
    return "\n".join(rules) + "\n"
