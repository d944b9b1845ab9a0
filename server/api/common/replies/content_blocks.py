"""An answer as a sequence of blocks: reasoning, text, tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from server.chat.output import OutputDelta, ShownToken, ToolCallDelta
from server.generation.output_processor import OutputSequence, SequenceEnd
from server.ids import new_id

Kind = Literal["reasoning", "text", "call"]


class Block:
    """A run of output of one kind. `call` has the id and name of a tool call, whose arguments are the block's
    text.
    """

    def __init__(self, index: int, kind: Kind, id: str, call: ToolCallDelta | None = None) -> None:
        self.index, self.kind, self.id, self.call = index, kind, id, call
        self.texts: list[str] = []
        self.tokens: list[ShownToken] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)


class BlockChange(NamedTuple):
    """A change of one block. text, tokens: what was added to the block."""

    kind: Literal["opened", "grown", "closed"]
    block: Block
    text: str = ""
    tokens: Sequence[ShownToken] = ()


class Blocks:
    """The blocks of one sequence so far; the last one may still be open."""

    def __init__(self, prefixes: Mapping[Kind, str]) -> None:
        """prefixes: the prefixes of the blocks' ids."""
        self.all: list[Block] = []
        self.open: Block | None = None
        self.end: SequenceEnd | None = None
        self._prefixes = prefixes

    def feed(self, delta: OutputDelta) -> list[BlockChange]:
        """The changes that the next piece of output causes."""
        changes: list[BlockChange] = []
        if delta.reasoning:
            changes += self._more("reasoning", delta.reasoning, ())
        in_text = self.open is not None and self.open.kind == "text"
        if delta.content or (delta.tokens and in_text and not (delta.reasoning or delta.tools)):
            changes += self._more("text", delta.content, delta.tokens)
        for call in delta.tools:
            changes += self._start("call", call) if call.id else []
            if call.arguments:
                changes.append(self._grow(self.all[-1], call.arguments, ()))
        return changes

    def finish(self, end: SequenceEnd | None) -> list[BlockChange]:
        """The changes that the end of the output causes."""
        self.end = end
        # Clients look at the first block without asking whether there is one.
        return [*([] if self.all else self._start("text")), *self._close()]

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        """Apply both without returning the changes."""
        self.feed(delta)
        if sequence.end is not None:
            self.finish(sequence.end)

    def _more(self, kind: Kind, text: str, tokens: Sequence[ShownToken]) -> list[BlockChange]:
        changes = [] if self.open is not None and self.open.kind == kind else self._start(kind)
        return [*changes, self._grow(self.all[-1], text, tokens)]

    def _grow(self, block: Block, text: str, tokens: Sequence[ShownToken]) -> BlockChange:
        block.texts.append(text)
        block.tokens += tokens
        return BlockChange("grown", block, text, tokens)

    def _start(self, kind: Kind, call: ToolCallDelta | None = None) -> list[BlockChange]:
        changes = self._close()
        self.open = Block(len(self.all), kind, new_id(self._prefixes[kind]), call)
        self.all.append(self.open)
        return [*changes, BlockChange("opened", self.open)]

    def _close(self) -> list[BlockChange]:
        block, self.open = self.open, None
        return [] if block is None else [BlockChange("closed", block)]


def named_event(kind: str, **fields: Any) -> bytes:
    """One server-sent event with a name."""
    data = msgspec.json.encode({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
