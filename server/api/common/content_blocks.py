"""An answer as blocks, one after the other and never two at once: reasoning, text, tool calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from server.generation.job import new_id
from server.http.sse import Format, encode

if TYPE_CHECKING:
    from server.chat.parser import ToolCallDelta
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Shown

Kind = Literal["reasoning", "text", "call"]


class Block:
    """A run of one kind. `call` has the id and name of a tool call, whose arguments are the block's text."""

    def __init__(self, index: int, kind: Kind, id: str, call: ToolCallDelta | None = None) -> None:
        self.index, self.kind, self.id, self.call = index, kind, id, call
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []  # of its tokens, where they are asked for

    @property
    def text(self) -> str:
        return "".join(self.texts)


class BlockFormat(Format):
    """The format of an API whose answers consist of blocks. A job has one choice."""

    prefixes: ClassVar[dict[Kind, str]]  # of the blocks' ids

    def __init__(self, job: Job) -> None:
        self.job = job
        self.blocks: list[Block] = []
        self.finished: str | None = None  # the choice's finish
        self._open: Block | None = None

    @abstractmethod
    def opened(self, block: Block) -> bytes: ...
    @abstractmethod
    def grown(self, block: Block, text: str, tokens: Sequence[Shown]) -> bytes: ...
    @abstractmethod
    def closed(self, block: Block) -> bytes: ...

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event with its name. Nothing where nobody reads events."""
        if not self.job.stream:
            return b""
        return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        content, reasoning, tools = piece.parts
        data = b""
        if reasoning:
            data += self._more("reasoning", reasoning, ())
        if content or (piece.tokens and not piece.parts and self._in_text):
            data += self._more("text", content, piece.tokens)
        for delta in tools:
            data += self._called(delta)
        return data

    def finish(self, choice: Choice, last: bool) -> bytes:
        self.finished = choice.finish
        data = b""
        if not self.blocks:  # clients look at the first block without asking whether there is one
            data = self._start("text")
        return data + self._close()

    @property
    def _in_text(self) -> bool:
        return self._open is not None and self._open.kind == "text"

    def _more(self, kind: Kind, text: str, tokens: Sequence[Shown]) -> bytes:
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
