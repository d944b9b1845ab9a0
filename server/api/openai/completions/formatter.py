"""A job as /v1/completions words it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.json import encode

from server.api.common.replies.logprobs import completion_logprobs, prompt_logprobs, token_texts
from server.api.common.replies.native_completion import NativeCompletion
from server.api.common.replies.timings import prompt_progress, timings_so_far
from server.api.openai.choice_formatter import FINISH_REASONS, ChoiceFormatter
from server.chat.output import OutputDelta, PromptProgress, ShownToken
from server.generation.job import Job
from server.generation.output_processor import OutputSequence, SequenceOutput


class CompletionFormatter(ChoiceFormatter):
    """The constant parts of chunks with nothing but text are encoded once."""

    def __init__(self, job: Job, verbose: NativeCompletion | None) -> None:
        super().__init__(job, "text_completion", verbose)
        options = job.options
        self.top, self.return_tokens = options.logprobs, options.return_tokens
        self.timings_per_token = options.timings_per_token
        self.text_only = self.top is None and not self.return_tokens and not self.timings_per_token
        head = b"data: " + encode(self.head)[:-1] + b',"choices":[{"index":'
        self._before = [head + b'%d,"text":' % sequence.index for sequence in job.sequences]
        usage = b',"usage":null' if self.include_usage else b""
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def start(self, sequence: OutputSequence) -> bytes:
        if scored := self.job.prompt_scores.get(sequence.prompt_index):
            return self.chunk(self._choice(sequence, sequence.echo, scored.tokens))
        if not sequence.echo:
            return b""
        return self._before[sequence.index] + encode(sequence.echo) + self._after

    def progress(self, sequence: OutputSequence, progress: PromptProgress) -> bytes:
        tail = prompt_progress(progress, sequence, self.timings_per_token)
        return self.chunk(self._choice(sequence, "", None), tail)

    def delta(self, sequence: OutputSequence, delta: OutputDelta) -> bytes:
        if self.text_only:
            return self._before[sequence.index] + encode(delta.text) + self._after
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
        """tokens: None: the choice has no tokens, so no log-probabilities either.

        These end with the token that ended the text, as OpenAI's and vLLM's do: who scores a prompt by `echo`
        and one more token drops the last.
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
