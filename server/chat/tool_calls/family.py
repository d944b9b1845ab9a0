"""What every way of calling tools gives: its marks, a reader of answers, a grammar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError
from engine.types import Constraint
from server.chat.text_reader import Reader
from server.chat.tool_calls.grammar import Words, answer_rule, quoted, schema_of
from server.chat.tool_calls.tool import Tool

ANY_TEXT = r"/(?s:.*)/"


@dataclass(frozen=True)
class Offer:
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


class CannotHold(Exception):
    """No grammar of this family holds arguments to such a schema."""


class Family(ABC):
    """How the models of one family call tools."""

    name: str
    short_ids = False  # ids of calls have nine characters
    reasons = False  # its grammars have reasoning in them

    @abstractmethod
    def detects(self, source: str) -> bool:
        """Whether a chat template is of this family."""

    @property
    @abstractmethod
    def marks(self) -> tuple[str, ...]:
        """Texts of the format that may be tokens of the vocabulary."""

    @abstractmethod
    def reader(self, offer: Offer, new_id: Callable[[], str]) -> Reader:
        """A parser of one answer."""

    @abstractmethod
    def grammar(self, offer: Offer, words: Words) -> str | None:
        """What an answer must match: calls with valid arguments, if it is not only text. Raises CannotHold.

        None: where nothing is required, an answer of this format is not held to anything.
        """

    @abstractmethod
    def example(self) -> str:
        """A call, for models whose template does not tell them how tools are called."""

    def whole_reader(
        self, offer: Offer | None, new_id: Callable[[], str], prompt: str, raw: bool
    ) -> Reader | None:
        """A parser of all of an answer, reasoning included, where the format is not text with parts in it."""
        return None

    def answer_grammar(self, answer: str, words: Words) -> str | None:
        """Where the content stands inside of something: a grammar around the rule that it must match."""
        return None

    def fit(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What else the templates of this family want of messages."""
        return messages


def arguments_rules(offer: Offer) -> list[str]:
    return [f"arguments_{i}: {held_to(tool.schema, tool)}" for i, tool in enumerate(offer.tools)]


def held_to(schema: Mapping[str, Any], tool: Tool) -> str:
    """A rule for what matches a schema of a tool. Raises CannotHold."""
    try:
        return schema_of(schema)
    except ConfigError as error:
        raise CannotHold(f"the schema of '{tool.name}' is not supported ({error})") from None


def one_of(rule: str, offer: Offer) -> str:
    return f"{rule}: " + " | ".join(f"{rule}_{i}" for i in range(len(offer.tools)))


def start_rules(offer: Offer, words: Words, opener: str, calls: str) -> list[str]:
    """How an answer begins: `calls` is the name of the rule for what comes behind the opener."""
    if offer.required:
        return [f"start: {words(opener)} {calls}"]
    if offer.answer is not None:
        return [f"start: answer | {words(opener)} {calls}", f"answer: {answer_rule(offer.answer)}"]
    if opener in words.tokens:  # free of it is every other token, those of the format included
        return [f"start: other* | other* {words(opener)} {calls}", f"other: <[^{words.tokens[opener]}]>"]
    return [f"start: TEXT | head {calls}", *text_until("head", opener, words), f"TEXT: {ANY_TEXT}"]


def text_until(rule: str, mark: str, words: Words) -> list[str]:
    """A rule for any text up to the first of this mark, and with it. Needs the terminal TEXT."""
    if mark in words.tokens:  # no text has it
        return [f"{rule}: TEXT {words(mark)}"]
    return [f"{rule}[lazy]: TEXT {quoted(mark)}"]


def lark(rules: list[str]) -> str:
    return "\n".join(rules) + "\n"
