"""A job as a message: its blocks, and the events of its making."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from engine.types import FinishReason
from server.api.common.content_blocks import Block, BlockFormat, Kind
from server.http.sse import Answer, encode

if TYPE_CHECKING:
    from server.errors import ApiError
    from server.generation.job import Job
    from server.generation.output_processor import Choice, Piece, Shown

SIGNATURE = "ggserve"  # clients want one, and send it back; there is nothing to prove here
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageFormat(BlockFormat):
    """`omit`: tell that there was thinking, but not which."""

    prefixes: ClassVar[dict[Kind, str]] = {"reasoning": "think_", "text": "text_", "call": "toolu_"}

    def __init__(self, job: Job, *, omit: bool = False, return_tokens: bool = False) -> None:
        super().__init__(job)
        self.omit = omit
        self.token_ids: list[int] | None = [] if return_tokens else None

    # --- events

    def first(self, choice: Choice) -> bytes:
        message = {**self._head(), "content": [], "stop_reason": None, "stop_sequence": None}
        return self.event("message_start", message={**message, "usage": self._usage()})

    def delta(self, choice: Choice, piece: Piece) -> bytes:
        if self.token_ids is not None:
            self.token_ids += [token.id for token, _ in piece.tokens]
        return super().delta(choice, piece)

    def opened(self, block: Block) -> bytes:
        return self.event("content_block_start", index=block.index, content_block=_empty(block))

    def grown(self, block: Block, text: str, tokens: Sequence[Shown]) -> bytes:
        if block.kind == "text":
            return self._delta(block, {"type": "text_delta", "text": text})
        if block.kind == "call":
            return self._delta(block, {"type": "input_json_delta", "partial_json": text})
        return b"" if self.omit else self._delta(block, {"type": "thinking_delta", "thinking": text})

    def closed(self, block: Block) -> bytes:
        data = b""
        if block.kind == "reasoning":
            data = self._delta(block, {"type": "signature_delta", "signature": SIGNATURE})
        return data + self.event("content_block_stop", index=block.index)

    def _delta(self, block: Block, delta: dict[str, Any]) -> bytes:
        return self.event("content_block_delta", index=block.index, delta=delta)

    def end(self) -> bytes:
        fields: dict[str, Any] = {"delta": self._stop(), "usage": self._usage(timings=True), **self._extra()}
        return self.event("message_delta", **fields) + self.event("message_stop")

    def keep_alive(self) -> bytes:
        return PING

    def error(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + encode(error.anthropic(self.job.record.id)) + b"\n\n"

    # --- the message

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        content = [self._block(block) for block in self.blocks]
        usage = self._usage(timings=True)
        return {**self._head(), "content": content, **self._stop(), "usage": usage, **self._extra()}

    def _head(self) -> dict[str, Any]:
        return {"id": self.job.id, "type": "message", "role": "assistant", "model": self.job.model}

    def _block(self, block: Block) -> dict[str, Any]:
        found = _empty(block)
        if block.kind == "text":
            return {**found, "text": block.text}
        if block.kind == "call":
            return {**found, "input": self._input(block)}
        return {**found, "thinking": "" if self.omit else block.text, "signature": SIGNATURE}

    def _input(self, block: Block) -> dict[str, Any]:
        """A model that is not bound to a schema, or is cut, may write something else than an object."""
        try:
            value = json.loads(block.text or "{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.job.warnings.append(
                f"content[{block.index}].input: the model wrote no JSON object, so it is empty"
            )
            return {}
        return value

    def _stop(self) -> dict[str, Any]:
        choice = self.job.choices[0]
        reason = {"stop": "end_turn", "tool_calls": "tool_use"}.get(choice.finish or "", "max_tokens")
        word = choice.stop_word if reason == "end_turn" else None
        if word is not None:
            reason = "stop_sequence"
        limit = choice.request.params.max_tokens
        if choice.reason is FinishReason.LENGTH and limit is not None and choice.n_generated < limit:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": word}

    def _usage(self, timings: bool = False) -> dict[str, Any]:
        """`timings` stand in here, since llama-server's clients expect none beside it."""
        usage = self.job.usage()
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        found: dict[str, Any] = {
            "input_tokens": usage["prompt_tokens"] - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage["completion_tokens"],
        }
        if timings:
            details = {"thinking_tokens": usage["completion_tokens_details"]["reasoning_tokens"]}
            found |= {"output_tokens_details": details, "timings": self.job.timings()}
        return found

    def _extra(self) -> dict[str, Any]:
        found: dict[str, Any] = {} if self.token_ids is None else {"tokens": self.token_ids}
        return {**found, "warnings": self.job.warnings} if self.job.warnings else found


def _empty(block: Block) -> dict[str, Any]:
    """As it begins."""
    if block.call is not None:
        return {"type": "tool_use", "id": block.call.id, "name": block.call.name, "input": {}}
    if block.kind == "text":
        return {"type": "text", "text": "", "citations": None}
    return {"type": "thinking", "thinking": "", "signature": ""}
