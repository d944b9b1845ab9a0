"""A job as /v1/chat/completions words it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.json import encode

from server.api.common.replies.logprobs import chat_logprobs, prompt_logprobs, token_texts
from server.api.common.replies.native_completion import NativeCompletion
from server.api.common.replies.timings import prompt_progress, timings_so_far
from server.api.openai.choice_formatter import FINISH_REASONS, ChoiceFormatter
from server.chat.output import OutputDelta, PromptProgress, ShownToken, ToolCallDelta
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceOutput


class ChatFormatter(ChoiceFormatter):
    """The constant parts of chunks with nothing but text are encoded once."""

    def __init__(self, job: Job, verbose: NativeCompletion | None) -> None:
        super().__init__(job, "chat.completion.chunk", verbose)
        options = job.options
        self.logprobs, self.return_tokens = options.logprobs is not None, options.return_tokens
        self.timings_per_token = options.timings_per_token
        self.text_only = not self.logprobs and not self.return_tokens and not self.timings_per_token
        head = b"data: " + encode(self.head)[:-1] + b',"choices":[{"index":'
        self._before = [head + b'%d,"delta":{"content":' % sequence.index for sequence in job.sequences]
        usage = b',"usage":null' if self.include_usage else b""
        self._after = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def start(self, sequence: OutputSequence) -> bytes:
        return self.chunk(self._choice(sequence, {"role": "assistant", "content": None}))

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        tail = prompt_progress(progress, sequence, self.timings_per_token)
        return self.chunk(self._choice(sequence, {}), tail)

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        if self.text_only and not delta.reasoning and not delta.tools:
            return self._before[sequence.index] + encode(delta.content) + self._after
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
        """The tokens' log-probabilities and ids, as far as they are requested. None: of no tokens."""
        logprobs = None
        if self.logprobs and tokens is not None:
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
    """A tool call. Its first delta has its id, type and name; a whole call has no index."""
    if not delta.id:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    call = {"id": delta.id, "type": "function", "function": function}
    return call if whole else {"index": delta.index, **call}
