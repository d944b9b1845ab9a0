"""Formats a job as a response with choices, for /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from msgspec.json import encode

from server.api.common.replies.errors import ERRORS
from server.api.common.replies.logprobs import (
    chat_logprobs,
    completion_logprobs,
    prompt_logprobs,
    token_texts,
)
from server.api.common.replies.native_completion import NativeCompletion
from server.api.common.replies.timings import prompt_progress, timings_so_far
from server.chat.output import OutputDelta, PromptProgress, ShownToken, ToolCallDelta
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceEnd, SequenceOutput
from server.http.sse import JobFormatter
from server.version import version

DONE = b"data: [DONE]\n\n"
FINISH_REASONS = {
    SequenceEnd.STOP: "stop",
    SequenceEnd.LENGTH: "length",
    SequenceEnd.TOOL_CALLS: "tool_calls",
}
_FINGERPRINTED = ("architecture", "n_params", "size_bytes", "n_ctx", "kv_type", "placement", "attention")


class ChoiceFormatter(JobFormatter):
    """What both share: head, chunks with only text, usage, tail.

    verbose: for `__verbose`; None if it was not requested. text_start, text_end: what surrounds the text in a
    choice, whose constant parts are encoded once.
    """

    errors = ERRORS
    object_name: ClassVar[str]
    text_start: ClassVar[bytes]
    text_end: ClassVar[bytes]

    def __init__(self, job: Job, verbose: NativeCompletion | None) -> None:
        options = job.options
        self.job, self.verbose, self.top = job, verbose, options.logprobs
        self.include_usage, self.return_tokens = options.include_usage, options.return_tokens
        self.timings_per_token = options.timings_per_token
        self.text_only = self.top is None and not self.return_tokens and not self.timings_per_token
        self.head = {
            "id": job.id,
            "object": self.object_name,
            "created": job.created,
            "model": job.model,
            "system_fingerprint": fingerprint(job.engine.info),
        }
        head = b"data: " + encode(self.head)[:-1] + b',"choices":[{"index":'
        self._before = [head + b"%d," % sequence.index + self.text_start for sequence in job.sequences]
        usage = b',"usage":null' if self.include_usage else b""
        self._after = self.text_end + b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def text_chunk(self, sequence: OutputSequence, text: str) -> bytes:
        """One event of a stream, with nothing but text."""
        return self._before[sequence.index] + encode(text) + self._after

    def chunk(self, choice: dict[str, Any], tail: dict[str, Any] | None = None) -> bytes:
        """One event of a stream."""
        usage = {"usage": None} if self.include_usage else {}
        return _event({**self.head, "choices": [choice], **usage, **(tail or {})})

    def end(self) -> bytes:
        if not self.include_usage:
            return DONE
        return _event({**self.head, "choices": [], "usage": self.usage(), **self.tail()}) + DONE

    def body(self, choices: list[dict[str, Any]], results: Sequence[SequenceOutput]) -> dict[str, Any]:
        """The complete response."""
        return {**self.head, "choices": choices, "usage": self.usage(), **self.tail(results)}

    def usage(self) -> dict[str, Any]:
        counts = self.job.counts()
        return {
            "prompt_tokens": counts.prompt,
            "completion_tokens": counts.generated,
            "total_tokens": counts.prompt + counts.generated,
            "prompt_tokens_details": {"cached_tokens": counts.cached},
            "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
        }

    def tail(self, results: Sequence[SequenceOutput] = ()) -> dict[str, Any]:
        """The fields other than the choices in a complete response or the last chunk of a stream (no
        `results`).
        """
        job = self.job
        fields: dict[str, Any] = {"timings": job.timings()}
        if self.verbose is not None:
            output = results[0][1] if results else OutputDelta()
            fields["__verbose"] = self.verbose.result(job.sequences[0], output.text, output.tokens)
        if job.context.warnings:
            fields["warnings"] = job.context.warnings
        return fields


class ChatFormatter(ChoiceFormatter):
    """Formats chat responses."""

    object_name = "chat.completion.chunk"
    text_start, text_end = b'"delta":{"content":', b"}"

    def start(self, sequence: OutputSequence) -> bytes:
        return self.chunk(self._choice(sequence, {"role": "assistant", "content": None}))

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        tail = prompt_progress(progress, sequence, self.timings_per_token)
        return self.chunk(self._choice(sequence, {}), tail)

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        if self.text_only and not delta.reasoning and not delta.tools:
            return self.text_chunk(sequence, delta.content)
        tail = timings_so_far(sequence) if self.timings_per_token else None
        return self.chunk(self._choice(sequence, _delta(delta), delta.tokens), tail)

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        return self.chunk(self._choice(sequence, {}, end=True), self.tail() if last else None)

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        body = self.body([self._whole_choice(*result) for result in results], results)
        if (top := self.job.options.prompt_logprobs) is not None:
            texts = token_texts(self.job.engine.tokenizer)
            body["prompt_logprobs"] = prompt_logprobs(texts, self.job.prompt_scores[0], top)
        return {**body, "object": "chat.completion"}

    def _whole_choice(self, sequence: OutputSequence, output: OutputDelta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": output.content, "refusal": None}
        if output.reasoning:
            message["reasoning_content"] = output.reasoning
        if output.tools:
            message["content"] = output.content or None
            message["tool_calls"] = [_call(call, whole=True) for call in output.tools]
        choice = {"index": sequence.index, "message": message, **self._token_fields(output.tokens)}
        return {**choice, "finish_reason": sequence.end and FINISH_REASONS[sequence.end]}

    def _choice(
        self,
        sequence: OutputSequence,
        delta: dict[str, Any],
        tokens: Sequence[ShownToken] | None = None,
        end: bool = False,
    ) -> dict[str, Any]:
        """A choice of a chunk."""
        reason = FINISH_REASONS[sequence.end] if end and sequence.end else None
        choice = {"index": sequence.index, "delta": delta}
        return {**choice, **self._token_fields(tokens), "finish_reason": reason}

    def _token_fields(self, tokens: Sequence[ShownToken] | None) -> dict[str, Any]:
        """The tokens' log-probabilities and ids, as far as requested. None: there are no tokens."""
        logprobs = None
        if self.top is not None and tokens is not None:
            logprobs = chat_logprobs(token_texts(self.job.engine.tokenizer), tokens)
        fields: dict[str, Any] = {"logprobs": logprobs}
        if self.return_tokens and tokens is not None:
            fields["tokens"] = [token.id for token, _ in tokens]
        return fields


def _delta(output: OutputDelta) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if output.reasoning:
        delta["reasoning_content"] = output.reasoning
    if output.content or not (output.reasoning or output.tools):
        delta["content"] = output.content
    if output.tools:
        delta["tool_calls"] = [_call(call) for call in output.tools]
    return delta


def _call(delta: ToolCallDelta, *, whole: bool = False) -> dict[str, Any]:
    """A tool call. Its first delta has its id, type and name; a complete call has no index."""
    if not delta.id:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    call = {"id": delta.id, "type": "function", "function": function}
    return call if whole else {"index": delta.index, **call}


class CompletionFormatter(ChoiceFormatter):
    """Formats completions."""

    object_name = "text_completion"
    text_start, text_end = b'"text":', b""

    def start(self, sequence: OutputSequence) -> bytes:
        if scored := self.job.prompt_scores.get(sequence.prompt_index):
            return self.chunk(self._choice(sequence, sequence.echo, scored.tokens))
        return self.text_chunk(sequence, sequence.echo) if sequence.echo else b""

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        tail = prompt_progress(progress, sequence, self.timings_per_token)
        return self.chunk(self._choice(sequence, "", None), tail)

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        if self.text_only:
            return self.text_chunk(sequence, delta.text)
        tail = timings_so_far(sequence) if self.timings_per_token else None
        return self.chunk(self._choice(sequence, delta.text, delta.tokens), tail)

    def finish(self, sequence: OutputSequence, last: bool) -> bytes:
        tokens: list[ShownToken] | None = None if sequence.end_token is None else []
        return self.chunk(self._choice(sequence, "", tokens, end=True), self.tail() if last else None)

    def whole(self, results: Sequence[SequenceOutput]) -> dict[str, Any]:
        choices = [self._whole_choice(*result) for result in results]
        if (top := self.job.options.prompt_logprobs) is not None:
            texts = token_texts(self.job.engine.tokenizer)
            scores = {i: prompt_logprobs(texts, scored, top) for i, scored in self.job.prompt_scores.items()}
            for choice, (sequence, _) in zip(choices, results, strict=True):
                choice["prompt_logprobs"] = scores[sequence.prompt_index]
        return self.body(choices, results)

    def _whole_choice(self, sequence: OutputSequence, output: OutputDelta) -> dict[str, Any]:
        tokens = output.tokens
        if self.job.options.echo and self.top is not None:
            tokens = [*self.job.prompt_scores[sequence.prompt_index].tokens, *tokens]
        return self._choice(sequence, sequence.echo + output.text, tokens, end=True)

    def _choice(
        self, sequence: OutputSequence, text: str, tokens: Sequence[ShownToken] | None, end: bool = False
    ) -> dict[str, Any]:
        """A choice. tokens: None if it has no tokens, and so no log-probabilities.

        The token that ended the text is included, as in OpenAI's API and vLLM: clients that score a prompt
        with `echo` and one more token drop the last one.
        """
        logprobs = None
        if self.top is not None and tokens is not None:
            shown = list(tokens)
            if end and sequence.end_token is not None:
                shown.append(ShownToken(sequence.end_token, sequence.n_chars))
            logprobs = completion_logprobs(token_texts(self.job.engine.tokenizer), shown, self.top)
        reason = FINISH_REASONS[sequence.end] if end and sequence.end else None
        choice = {"index": sequence.index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        if self.return_tokens:
            choice["tokens"] = [token.id for token, _ in tokens or ()]
        return choice


def _event(value: Any) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def fingerprint(info: Mapping[str, Any] | None) -> str:
    """The `system_fingerprint`: when it changes, the same seed may give another text.

    It is a hash of the version and of a model's weights, cache and placement.
    """
    values = [version(), *((info or {}).get(name) for name in _FINGERPRINTED)]
    return "b" + hashlib.sha256(encode(values)).hexdigest()[:10]
