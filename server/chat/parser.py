"""What a model's output consists of for a chat client: content, reasoning, tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A part of one tool call. The first part of a call has its id and name, later ones neither."""

    index: int  # of the call within the output
    id: str = ""
    name: str = ""
    arguments: str = ""  # JSON text, to be appended to that of earlier parts


class ParsedOutput(NamedTuple):
    """The output, or the next piece of it."""

    content: str = ""
    reasoning: str = ""
    tools: tuple[ToolCallDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.tools)


def merge_parsed(pieces: Iterable[ParsedOutput]) -> ParsedOutput:
    """Consecutive pieces of one output as one: a single ToolCallDelta for each call."""
    contents: list[str] = []
    reasonings: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    for content, reasoning, tools in pieces:
        contents.append(content)
        reasonings.append(reasoning)
        for delta in tools:
            call = calls.get(delta.index)
            if call is not None:
                delta = msgspec.structs.replace(call, arguments=call.arguments + delta.arguments)
            calls[delta.index] = delta
    in_order = tuple(calls[index] for index in sorted(calls))
    return ParsedOutput("".join(contents), "".join(reasonings), in_order)


class OutputParser(Protocol):
    """Parses one output as it is generated. Text that may turn out to be a marker is held back."""

    @property
    def reasoning(self) -> bool:
        """Whether the next text is reasoning, so that its tokens count as reasoning tokens."""

    @property
    def has_calls(self) -> bool:
        """Whether the output calls a tool: its finish reason is then `tool_calls` in place of `stop`."""

    def push(self, text: str) -> ParsedOutput: ...
    def flush(self) -> ParsedOutput: ...
