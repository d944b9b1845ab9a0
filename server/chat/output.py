"""The parts of a model's output: content, reasoning and tool calls, and the tokens behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from engine.types import Token


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A part of one tool call. Only the first part of a call has its id and name."""

    index: int  # of the call within the output
    id: str = ""
    name: str = ""
    arguments: str = ""  # JSON text, to be appended to that of earlier parts


class ShownToken(NamedTuple):
    """A token that the client sees. start: its offset in the sequence's text, in characters."""

    token: Token
    start: int


class PromptProgress(NamedTuple):
    """Prompt tokens: in total, from the prefix cache, computed or cached so far.

    ms: time since the first step.
    """

    total: int
    cached: int
    processed: int
    ms: float


class OutputDelta(NamedTuple):
    """An output, or the next piece of it, as parsed from the text.

    text: the text as generated; without a parser it is the content. progress: of the prompt, before there is
    text.
    """

    content: str = ""
    reasoning: str = ""
    tools: tuple[ToolCallDelta, ...] = ()
    text: str = ""
    tokens: Sequence[ShownToken] = ()
    progress: Sequence[PromptProgress] = ()


def merge_deltas(deltas: Sequence[OutputDelta]) -> OutputDelta:
    """Consecutive pieces of an output merged into one, with a single ToolCallDelta per call."""
    return OutputDelta(
        "".join([delta.content for delta in deltas]),
        "".join([delta.reasoning for delta in deltas]),
        _merge_calls(part for delta in deltas for part in delta.tools),
        "".join([delta.text for delta in deltas]),
        tuple([token for delta in deltas for token in delta.tokens]),
    )


def _merge_calls(parts: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    arguments: dict[int, list[str]] = {}
    calls: dict[int, ToolCallDelta] = {}
    for part in parts:
        calls.setdefault(part.index, part)
        arguments.setdefault(part.index, []).append(part.arguments)
    replace = msgspec.structs.replace
    return tuple(replace(calls[index], arguments="".join(arguments[index])) for index in sorted(calls))


class OutputParser(Protocol):
    """Parses one output as it is generated. Text that may turn out to be a marker is held back."""

    @property
    def reasoning(self) -> bool:
        """Whether the next text is reasoning, so that its tokens count as reasoning tokens."""

    @property
    def has_calls(self) -> bool:
        """Whether the output calls a tool, so that its finish reason is `tool_calls` instead of `stop`."""

    def push(self, text: str, last: bool = False) -> OutputDelta:
        """Parse more text. last: the output ends with this text, so nothing is held back any more."""
