"""A job as Ollama words it: lines of JSON, of which the last has the counts, or one object."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from server.api.common.replies.logprobs import chat_logprobs, token_texts
from server.api.common.replies.timings import total_timings
from server.api.common.replies.tool_arguments import arguments_object
from server.api.ollama.errors import error_body
from server.api.ollama.schema import OllamaChatRequest, OllamaFields
from server.chat.output import OutputDelta, ShownToken, ToolCallDelta, merge_deltas
from server.errors import ApiError
from server.generation.formatter import JobFormatter
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd, SequenceOutput
from server.http import ndjson


def answer(
    body: OllamaFields, text: str, thinking: str = "", calls: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """What every line has: the model as the request names it, the time, what the model wrote."""
    head = {"model": body.model, "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
    more = {"thinking": thinking} if thinking else {}
    if not isinstance(body, OllamaChatRequest):
        return {**head, "response": text, **more}
    message = {"role": "assistant", "content": text, **more, **({"tool_calls": calls} if calls else {})}
    return {**head, "message": message}


class OllamaFormatter(JobFormatter):
    """with_context: the answer has the field `context`. Tool calls are sent whole, at the end."""

    media_type: ClassVar[bytes] = ndjson.MEDIA_TYPE

    def __init__(self, job: Job, body: OllamaFields, *, with_context: bool = False) -> None:
        self.job, self.body, self.with_context = job, body, with_context
        self._tokens: list[int] = []
        self._calls: list[OutputDelta] = []

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        self._tokens += [token.id for token, _ in delta.tokens]
        if delta.tools:
            self._calls.append(delta)
        logprobs = self._logprobs(delta.tokens)
        if not (delta.content or delta.reasoning or logprobs):
            return b""
        line = answer(self.body, delta.content, delta.reasoning)
        return ndjson.json_line({**line, "done": False, **logprobs})

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        if not self._calls:
            return b""
        calls = self._tool_calls(merge_deltas(self._calls).tools)
        return ndjson.json_line({**answer(self.body, "", "", calls), "done": False})

    def end(self) -> bytes:
        return ndjson.json_line({**answer(self.body, ""), **self._end()})

    def error(self, error: ApiError) -> bytes:
        return ndjson.json_line(error_body(error))

    def keep_alive(self) -> bytes:
        return ndjson.KEEP_ALIVE

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        ((_, output),) = results
        self._tokens = [token.id for token, _ in output.tokens]
        reply = answer(self.body, output.content, output.reasoning, self._tool_calls(output.tools))
        return {**reply, **self._logprobs(output.tokens), **self._end()}

    def _end(self) -> dict[str, Any]:
        """The fields of the last line and of a whole answer."""
        job, (sequence,) = self.job, self.job.sequences
        counts, timings = job.counts(), sequence.timings
        fields: dict[str, Any] = {
            "done": True,
            "done_reason": "length" if sequence.end is SequenceEnd.LENGTH else "stop",
            "total_duration": int((time.monotonic() - job.started) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": counts.prompt,
            "prompt_eval_duration": int(timings.prompt_ms * 1e6),
            "eval_count": counts.generated,
            "eval_duration": int(timings.predicted_ms * 1e6),
            "timings": total_timings([timings]),
        }
        if self.with_context:  # with the token that ended the text, since it ends a message in templates
            end = [] if sequence.end_token is None else [sequence.end_token.id]
            fields["context"] = [*sequence.request.prompt, *self._tokens, *end]
        if self.body.options is not None and self.body.options.return_tokens:
            fields["tokens"] = self._tokens
        return job.context.with_warnings(fields)

    def _logprobs(self, tokens: Sequence[ShownToken]) -> dict[str, Any]:
        if not (self.body.logprobs and tokens):
            return {}
        return {"logprobs": chat_logprobs(token_texts(self.job.engine.tokenizer), tokens)["content"]}

    def _tool_calls(self, calls: Iterable[ToolCallDelta]) -> list[dict[str, Any]]:
        replies = []
        for call in calls:
            arguments = arguments_object(call.arguments, f"tool_calls[{call.index}]", self.job.context)
            function = {"index": call.index, "name": call.name, "arguments": arguments}
            replies.append({"id": call.id, "function": function})
        return replies
