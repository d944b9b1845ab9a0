"""Formats jobs and errors as Ollama does: as lines of JSON, the last with the counts, or as one object."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from server.api.common.replies.errors import message_with_field
from server.api.common.replies.logprobs import chat_logprobs, token_texts
from server.api.common.replies.tool_arguments import arguments_object
from server.api.common.requests.generation_fields import SequenceFields
from server.api.ollama.schema import OllamaFields, OllamaGenerateRequest
from server.chat.output import OutputDelta, ShownToken, ToolCallDelta
from server.errors import ApiError, ErrorFormat, UnknownModel
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd, SequenceOutput, merge_deltas
from server.generation.request_context import AccessRecord
from server.http import ndjson
from server.http.sse import JobFormatter


def error_body(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """The error, a string that begins with the field at fault. Clients look for the wording for unknown
    models.
    """
    if isinstance(error, UnknownModel):
        return {"error": f"model '{error.model[:200]}' not found"}
    place = "options." if error.param in SequenceFields.model_fields else ""
    return {"error": place + message_with_field(error)}


ERRORS = ErrorFormat(error_body, prefix="/api/", stream=ndjson.STREAM)


def answer(body: OllamaFields, output: OutputDelta, *calls: Any, **fields: Any) -> dict[str, Any]:
    """The fields of every line: the model as the request names it, the time, and the model's output."""
    reply = {"model": body.model, "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
    thinking = {"thinking": output.reasoning} if output.reasoning else {}
    if isinstance(body, OllamaGenerateRequest):
        return {**reply, "response": output.content, **thinking, **fields}
    called = {"tool_calls": calls} if calls else {}
    message = {"role": "assistant", "content": output.content, **thinking, **called}
    return {**reply, "message": message, **fields}


def durations(record: AccessRecord) -> dict[str, int]:
    """The durations of the whole request and of loading its model, in nanoseconds."""
    return {
        "total_duration": int((time.monotonic() - record.started) * 1e9),
        "load_duration": int((record.load_ms or 0.0) * 1e6),
    }


class OllamaFormatter(JobFormatter):
    """Tool calls are sent complete, at the end."""

    errors = ERRORS

    def __init__(self, job: Job, body: OllamaFields) -> None:
        self.job, self.body = job, body
        self._calls: list[OutputDelta] = []

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        if delta.tools:
            self._calls.append(delta)
        logprobs = self._logprobs(delta.tokens)
        if not (delta.content or delta.reasoning or logprobs):
            return b""
        return ndjson.json_line(answer(self.body, delta, done=False, **logprobs))

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        calls = [*self._tool_calls(merge_deltas(self._calls).tools)] if self._calls else []
        line = ndjson.json_line(answer(self.body, OutputDelta(), *calls, done=False)) if calls else b""
        return line + ndjson.json_line(answer(self.body, OutputDelta(), **self._end()))

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        ((_, output),) = results
        calls = self._tool_calls(output.tools)
        return answer(self.body, output, *calls, **self._logprobs(output.tokens), **self._end())

    def _end(self) -> dict[str, Any]:
        """The fields of the last line, or of a complete response."""
        job, (sequence,) = self.job, self.job.sequences
        counts, timings = job.counts(), sequence.timings
        fields: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if sequence.end is SequenceEnd.LENGTH else "stop",
            **durations(job.context.record),
            "prompt_eval_count": counts.prompt,
            "prompt_eval_duration": int(timings.prompt_ms * 1e6),
            "eval_count": counts.generated,
            "eval_duration": int(timings.predicted_ms * 1e6),
            "timings": job.timings(),
        }
        if isinstance(self.body, OllamaGenerateRequest) and not self.body.raw:
            # With the token that ended the text, since it ends a message in templates.
            end = [] if sequence.end_token is None else [sequence.end_token.id]
            fields["context"] = [*sequence.request.prompt, *sequence.token_ids, *end]
        if self.body.options is not None and self.body.options.return_tokens:
            fields["tokens"] = sequence.token_ids
        return job.context.with_warnings(fields)

    def _logprobs(self, tokens: Sequence[ShownToken]) -> dict[str, Any]:
        if not (self.body.logprobs and tokens):
            return {}
        return {"logprobs": chat_logprobs(token_texts(self.job.engine.tokenizer), tokens)["content"]}

    def _tool_calls(self, calls: Sequence[ToolCallDelta]) -> Iterator[dict[str, Any]]:
        for call in calls:
            arguments = arguments_object(call.arguments, f"tool_calls[{call.index}]", self.job.context)
            function = {"index": call.index, "name": call.name, "arguments": arguments}
            yield {"id": call.id, "function": function}
