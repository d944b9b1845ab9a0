"""What the input processor takes, besides `server.chat.request.ChatInput`, and what it makes of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.types import Constraint, Thinking
from server.chat.parser import OutputParser
from server.chat.request import RequestedConstraint

Prompt = str | Sequence[int] | Sequence[int | str]  # text, token ids, or both in turn


@dataclass(frozen=True)
class CompletionInput:
    """Prompts to continue. suffix: comes after the gap that is filled. echo: start with the prompt."""

    prompts: Sequence[Prompt]
    constraint: RequestedConstraint | None = None
    suffix: str | None = None
    echo: bool = False


def _no_parser() -> OutputParser | None:
    return None


@dataclass(frozen=True)
class PreparedPrompt:
    """One prompt as the engine takes it, checked against the model.

    preserved_tokens: special tokens whose text the output parser needs. new_parser: for each sequence; gives
    None where the output is plain text. echo: the text with which the output begins.
    """

    tokens: list[int]
    constraint: Constraint | None = None
    thinking: Thinking | None = None
    preserved_tokens: frozenset[int] = frozenset()
    new_parser: Callable[[], OutputParser | None] = _no_parser
    echo: str = ""
