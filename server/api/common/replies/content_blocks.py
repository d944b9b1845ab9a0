"""An answer as a sequence of blocks: reasoning, text, tool calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec

from server.chat.output import OutputDelta, ShownToken, ToolCallDelta
from server.generation.formatter import JobFormatter
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd
from server.ids import new_id

Kind = Literal["reasoning", "text", "call"]


class Block:
    """A run of one kind. `call` has the id and name of a tool call, whose arguments are the block's text."""

    def __init__(self, index: int, kind: Kind, id: str, call: ToolCallDelta | None = None) -> None:
        self.index, self.kind, self.id, self.call = index, kind, id, call
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []  # of its tokens, where they are requested

    @property
    def text(self) -> str:
        return "".join(self.texts)


class BlockFormatter(JobFormatter):
    """For APIs whose responses consist of blocks. Its job has one sequence."""

    prefixes: ClassVar[dict[Kind, str]]  # of the blocks' ids

    def __init__(self, job: Job) -> None:
        self.job = job
        self.blocks: list[Block] = []
        self.finished: SequenceEnd | None = None
        self._open: Block | None = None

    @abstractmethod
    def opened(self, block: Block) -> bytes: ...
    @abstractmethod
    def grown(self, block: Block, text: str, tokens: Sequence[ShownToken]) -> bytes: ...
    @abstractmethod
    def closed(self, block: Block) -> bytes: ...

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event with its name; nothing where the response is not streamed."""
        if not self.job.options.stream:
            return b""
        return (
            b"event: " + kind.encode() + b"\ndata: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"
        )

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        data = b""
        if delta.reasoning:
            data += self._more("reasoning", delta.reasoning, ())
        if delta.content or (delta.tokens and self._in_text and not (delta.reasoning or delta.tools)):
            data += self._more("text", delta.content, delta.tokens)
        for call in delta.tools:
            data += self._called(call)
        return data

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        self.delta(sequence, delta)
        if sequence.end is not None:
            self.finish(sequence, last=True)

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        self.finished = sequence.end
        data = b""
        if not self.blocks:  # clients look at the first block without asking whether there is one
            data = self._start("text")
        return data + self._close()

    @property
    def _in_text(self) -> bool:
        return self._open is not None and self._open.kind == "text"

    def _more(self, kind: Kind, text: str, tokens: Sequence[ShownToken]) -> bytes:
        data = b""
        block = self._open
        if block is None or block.kind != kind:
            data = self._start(kind)
            block = self.blocks[-1]
        block.texts.append(text)
        return data + self.grown(block, text, tokens)

    def _called(self, delta: ToolCallDelta) -> bytes:
        data = self._start("call", delta) if delta.id else b""
        if not delta.arguments:
            return data
        block = self.blocks[-1]
        block.texts.append(delta.arguments)
        return data + self.grown(block, delta.arguments, ())

    def _start(self, kind: Kind, call: ToolCallDelta | None = None) -> bytes:
        data = self._close()
        block = Block(len(self.blocks), kind, new_id(self.prefixes[kind]), call)
        self.blocks.append(block)
        self._open = block
        return data + self.opened(block)

    def _close(self) -> bytes:
        block, self._open = self._open, None
        return b"" if block is None else self.closed(block)
