"""The parts of a model's output: content, reasoning and tool calls, and the tokens behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
