"""Formats a job as a message: its content blocks, and the events of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.types import FinishReason
from server.api.anthropic.errors import ERRORS
from server.api.common.replies.content_blocks import Block, BlockChange, Blocks, Kind, named_event
from server.api.common.replies.tool_arguments import arguments_object
from server.chat.output import OutputDelta
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd, SequenceOutput
from server.http.sse import JobFormatter

_STOP_REASONS = {SequenceEnd.STOP: "end_turn", SequenceEnd.TOOL_CALLS: "tool_use"}
_PREFIXES: dict[Kind, str] = {"reasoning": "think_", "text": "text_", "call": "toolu_"}
_DELTAS: dict[Kind, tuple[str, str]] = {  # the type, and the field of the text
    "reasoning": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}
SIGNATURE = "ggserve"  # clients expect one and send it back; here it proves nothing
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class MessageFormatter(JobFormatter):
    """omit_thinking: show that there was thinking, but not its text. edits: the applied edits to the
    conversation; None: the request asked for none.
    """

    errors = ERRORS

    def __init__(
        self, job: Job, *, omit_thinking: bool = False, edits: list[dict[str, Any]] | None = None
    ) -> None:
        self.job, self.blocks = job, Blocks(_PREFIXES)
        self.omit_thinking, self.edits = omit_thinking, edits

    # --- events

    def start(self, sequence: OutputSequence) -> bytes:
        message = {**self._head(), "content": [], "stop_reason": None, "stop_sequence": None}
        return named_event("message_start", message={**message, "usage": self._usage()})

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        return b"".join(map(self._events, self.blocks.feed(delta)))

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        return b"".join(map(self._events, self.blocks.finish(sequence.end)))

    def collect(self, sequence: OutputSequence, delta: OutputDelta) -> None:
        self.blocks.collect(sequence, delta)

    def _events(self, change: BlockChange) -> bytes:
        index, kind, text = change.block.index, change.block.kind, change.text
        if change.kind == "opened":
            return named_event("content_block_start", index=index, content_block=_empty(change.block))
        if change.kind == "closed":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            data = (
                named_event("content_block_delta", index=index, delta=delta) if kind == "reasoning" else b""
            )
            return data + named_event("content_block_stop", index=index)
        if kind == "reasoning" and self.omit_thinking:
            return b""
        type, field = _DELTAS[kind]
        return named_event("content_block_delta", index=index, delta={"type": type, field: text})

    def end(self) -> bytes:
        fields: dict[str, Any] = {"delta": self._stop(), "usage": self._usage(timings=True), **self._extra()}
        return named_event("message_delta", **fields) + named_event("message_stop")

    def keep_alive(self) -> bytes:
        return PING

    # --- the message

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        content = [self._block(block) for block in self.blocks.all]
        usage = self._usage(timings=True)
        return {**self._head(), "content": content, **self._stop(), "usage": usage, **self._extra()}

    def _head(self) -> dict[str, Any]:
        return {"id": self.job.id, "type": "message", "role": "assistant", "model": self.job.model}

    def _block(self, block: Block) -> dict[str, Any]:
        fields = _empty(block)
        if block.kind == "text":
            return {**fields, "text": block.text}
        if block.kind == "call":
            where = f"content[{block.index}].input"
            return {**fields, "input": arguments_object(block.text, where, self.job.context)}
        return {**fields, "thinking": "" if self.omit_thinking else block.text, "signature": SIGNATURE}

    def _stop(self) -> dict[str, Any]:
        sequence = self.job.sequences[0]
        reason = "max_tokens" if sequence.end is None else _STOP_REASONS.get(sequence.end, "max_tokens")
        stop_string = sequence.stop_string if reason == "end_turn" else None
        if stop_string is not None:
            reason = "stop_sequence"
        limit = sequence.request.params.max_tokens
        limited = sequence.engine_finish is FinishReason.LENGTH
        if limited and limit is not None and sequence.n_generated < limit:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": stop_string}

    def _usage(self, timings: bool = False) -> dict[str, Any]:
        """Token counts. `timings` are inside, since clients do not expect them beside it."""
        counts = self.job.counts()
        usage: dict[str, Any] = {
            "input_tokens": counts.prompt - counts.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": counts.cached,
            "output_tokens": counts.generated,
        }
        if timings:
            usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
            usage["timings"] = self.job.timings()
        return usage

    def _extra(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.job.options.return_tokens:
            fields["tokens"] = self.job.sequences[0].token_ids
        if self.edits is not None:
            fields["context_management"] = {"applied_edits": self.edits}
        return self.job.context.with_warnings(fields)


def _empty(block: Block) -> dict[str, Any]:
    """The block as it is at its start."""
    if block.call is not None:
        # The block's own id: strict clients want the prefix, and the model's format may have ids of its own.
        return {"type": "tool_use", "id": block.id, "name": block.call.name, "input": {}}
    if block.kind == "text":
        return {"type": "text", "text": ""}
    return {"type": "thinking", "thinking": "", "signature": ""}
