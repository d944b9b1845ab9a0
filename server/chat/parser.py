"""What a model's answer consists of for a chat client: text, reasoning, tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec


class ToolCallDelta(msgspec.Struct, frozen=True):
    """News of one tool call. The first of a call has its id and name, later ones neither."""

    index: int  # of the call within the answer
    id: str = ""
    name: str = ""
    arguments: str = ""  # JSON text, to be appended to what came before


class ParsedOutput(NamedTuple):
    """One piece of an answer."""

    content: str = ""
    reasoning: str = ""
    tools: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.tools)


def merge_parsed(parts: Iterable[ParsedOutput]) -> ParsedOutput:
    """The pieces of one answer put together: one ToolDelta for each call."""
    contents: list[str] = []
    reasonings: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    for content, reasoning, tools in parts:
        contents.append(content)
        reasonings.append(reasoning)
        for delta in tools:
            call = calls.get(delta.index)
            if call is not None:
                delta = msgspec.structs.replace(call, arguments=call.arguments + delta.arguments)
            calls[delta.index] = delta
    return ParsedOutput(
        "".join(contents), "".join(reasonings), tuple(calls[index] for index in sorted(calls))
    )


class OutputParser(Protocol):
    """Splits one answer as it comes. What may still become a marker is held back."""

    @property
    def reasoning(self) -> bool:
        """Whether what comes next is reasoning: its tokens are counted as such."""

    @property
    def has_calls(self) -> bool:
        """Whether the answer called a tool: then it ends with `tool_calls` where it would with `stop`."""

    def push(self, text: str) -> ParsedOutput: ...
    def flush(self) -> ParsedOutput: ...
