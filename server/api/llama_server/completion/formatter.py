"""Formats a job as llama-server does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.common.replies.errors import ERRORS, error_body
from server.api.common.replies.native_completion import NativeCompletion
from server.api.common.replies.timings import prompt_progress, timings_so_far
from server.chat.output import OutputDelta, PromptProgress, ShownToken
from server.errors import ApiError
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceOutput
from server.http.sse import JobFormatter, event


class NativeFormatter(JobFormatter):
    """An event for each token; the last one of each sequence has all other fields. There is no [DONE].

    prompts: as the model saw them, by `prompt_index`; None if they were not requested. fields:
    `response_fields`; None: all.
    """

    errors = ERRORS

    def __init__(
        self,
        job: Job,
        prompts: Sequence[str] | None,
        *,
        return_tokens: bool = False,
        fields: Sequence[str] | None = None,
    ) -> None:
        self.job = job
        self.fields = fields
        self.native = NativeCompletion(job, prompts, return_tokens=return_tokens)
        self.timings_per_token = job.options.timings_per_token
        self._sent = [0] * len(job.sequences)  # characters

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        part = self.native.part(sequence, "", [])
        return event({**part, **prompt_progress(progress, sequence, self.timings_per_token)})

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        base = self._sent[sequence.index]
        self._sent[sequence.index] += len(delta.text)
        tail = timings_so_far(sequence) if self.timings_per_token else {}
        starts = [0, *(max(0, start - base) for _, start in delta.tokens[1:]), len(delta.text)]
        data = b""
        for i, shown in enumerate(delta.tokens):
            part = self.native.part(sequence, delta.text[starts[i] : starts[i + 1]], [shown.token.id])
            data += event({**part, **tail, **self.native.probabilities(sequence, [shown])})
        if not delta.tokens:
            data = event({**self.native.part(sequence, delta.text, []), **tail})
        return data

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        return event(self._result(sequence, "", [], last))

    def error(self, error: ApiError) -> bytes:
        return event(error_body(error))

    def whole(self, results: Sequence[SequenceOutput]) -> Any:
        last, _ = results[-1]
        replies = [self._result(s, output.text, output.tokens, s is last) for s, output in results]
        return replies if len(replies) > 1 else replies[0]

    def _result(
        self, sequence: OutputSequence, text: str, tokens: Sequence[ShownToken], last: bool
    ) -> dict[str, Any]:
        result = self.native.result(sequence, text, tokens)
        if last:
            result = self.job.context.with_warnings(result)
        return picked(result, self.fields) if self.fields else result


def picked(reply: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """`response_fields`: the values at these paths, keyed by the paths as the request has them."""
    values: dict[str, Any] = {}
    for path in fields:
        value: Any = reply
        for key in path.split("/"):
            if not isinstance(value, Mapping) or key not in value:
                break
            value = value[key]
        else:
            values[path] = value
    return values
