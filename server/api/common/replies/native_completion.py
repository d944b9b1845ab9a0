"""A completion in llama-server's format: for /completion, and for `__verbose` of the OpenAI routes."""

from __future__ import annotations

import codecs
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from engine.types import AdapterScales, FinishReason, InferenceParameters
from server.api.common.replies.logprobs import number, token_texts
from server.chat.output import ShownToken
from server.generation.job import Job, timings_reply
from server.generation.output_processor import OutputSequence

_ABSENT = {
    "grammar_lazy": False,
    "grammar_triggers": [],
    "preserved_tokens": [],
    "chat_format": "Content-only",
    "reasoning_format": "none",
    "reasoning_in_content": False,
    "generation_prompt": "",
    "backend_sampling": False,
}
_SAME = [
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "ignore_eos",
    "dynatemp_range",
    "dynatemp_exponent",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "adaptive_target",
    "adaptive_decay",
    "min_keep",
    "top_a",
    "tfs_z",
    "min_tokens",
    "samplers",
]


def lora_settings(lora: AdapterScales) -> list[dict[str, Any]]:
    """The adapters in use, in llama-server's format."""
    return [{"id": number, "scale": scale} for number, scale in lora]


def generation_settings(
    params: InferenceParameters, job: Job | None = None, sequence: OutputSequence | None = None
) -> dict[str, Any]:
    """The effective settings under llama-server's names; unsupported ones have their neutral value.

    job, sequence: None for the settings of the server without a request.
    """
    bias = dict(params.logit_bias)
    if params.ignore_eos and job is not None:
        bias |= dict.fromkeys(sorted(job.engine.tokenizer.eog_ids), -math.inf)
    limit = -1 if params.max_tokens is None else params.max_tokens
    constraint = None if sequence is None else sequence.request.constraint
    options = None if job is None else job.options
    request = None if sequence is None else sequence.request
    spec_type = request.spec_type if request is not None and request.draft_max else "none"
    return {
        **{name: getattr(params, name) for name in _SAME},
        **_ABSENT,
        "speculative.types": spec_type,
        "lora": lora_settings(() if sequence is None else sequence.request.lora),
        "n_keep": 0 if options is None else options.n_keep,
        "n_discard": 0 if options is None else options.n_discard,
        "max_tokens": limit,
        "n_predict": limit,
        "stop": [] if options is None else list(options.stop),
        "stream": options is not None and options.stream,
        "logit_bias": [
            {"bias": value if math.isfinite(value) else None, "token": token} for token, value in bias.items()
        ],
        "n_probs": params.logprobs or 0,
        "grammar": constraint.text if constraint is not None and constraint.kind == "gbnf" else "",
        "timings_per_token": options is not None and options.timings_per_token,
        "post_sampling_probs": options is not None and options.post_sampling_logprobs,
    }


class NativeCompletion:
    """Formats the sequences of one job.

    prompts: as the model saw them, by `prompt_index`; None if they were not requested.
    """

    def __init__(self, job: Job, prompts: Sequence[str] | None, *, return_tokens: bool) -> None:
        self.job, self.prompts, self.return_tokens = job, prompts, return_tokens
        self.has_logprobs = any(s.request.params.logprobs is not None for s in job.sequences)
        self._texts = token_texts(job.engine.tokenizer)
        self._decoders: defaultdict[int, codecs.IncrementalDecoder] = defaultdict(
            _utf8_decoder
        )  # by sequence

    def part(self, sequence: OutputSequence, content: str, tokens: list[int]) -> dict[str, Any]:
        """One event of a stream, except the last."""
        slot = sequence.request.slot
        return {
            "index": sequence.index,
            "content": content,
            "tokens": tokens,
            "stop": False,
            "id_slot": -1 if slot is None else slot,
            "tokens_predicted": sequence.n_generated,
            "tokens_evaluated": len(sequence.request.prompt),
        }

    def result(self, sequence: OutputSequence, text: str, tokens: Sequence[ShownToken]) -> dict[str, Any]:
        """The complete sequence; in the last event of a stream its `text` is empty."""
        job, request = self.job, sequence.request
        n_prompt, n_generated = len(request.prompt), sequence.n_generated
        stop_type, stop_string = self._stop(sequence)
        ids = [shown.token.id for shown in tokens] if self.return_tokens else []
        result = self.part(sequence, text, ids) | {
            "stop": True,
            "model": job.model,
            "generation_settings": generation_settings(request.params, job, sequence),
            "prompt": self.prompts[sequence.prompt_index] if self.prompts else "",
            "has_new_line": sequence.has_line_break,
            "truncated": job.is_truncated(sequence),
            "stop_type": stop_type,
            "stopping_word": stop_string,
            "tokens_cached": n_prompt + max(n_generated - 1, 0) - job.n_dropped(sequence),
            "timings": timings_reply(sequence.timings),
        }
        return result | self.probabilities(sequence, tokens) if tokens else result

    def probabilities(self, sequence: OutputSequence, tokens: Sequence[ShownToken]) -> dict[str, Any]:
        """The field with the next tokens' probabilities, if they were requested.

        The text of a token is the text that it completes, so that the texts together make up the content; for
        the alternatives it is the text that they would complete.
        """
        if not self.has_logprobs:
            return {}
        top_name = "top_probs" if self.job.options.post_sampling_logprobs else "top_logprobs"
        entries = []
        for token, _ in tokens:
            top = [self._entry(id, logprob, _utf8_decoder()) for id, logprob in token.top or ()]
            entry = self._entry(token.id, token.logprob, self._decoders[sequence.index])
            entries.append({**entry, top_name: top})
        return {"completion_probabilities": entries}

    def _entry(self, id: int, logprob: float | None, decoder: codecs.IncrementalDecoder) -> dict[str, Any]:
        data, value = self._texts.bytes(id), number(logprob)
        post = self.job.options.post_sampling_logprobs
        probability = {"prob": math.exp(value)} if post and value is not None else {"logprob": value}
        return {"id": id, "token": decoder.decode(data), "bytes": list(data), **probability}

    def _stop(self, sequence: OutputSequence) -> tuple[str, str]:
        """The fields `stop_type` and `stopping_word`."""
        if sequence.stop_string is not None:
            return "word", sequence.stop_string
        if sequence.engine_finish is not FinishReason.STOP:
            return "limit", ""
        tokenizer = self.job.engine.tokenizer
        end = sequence.end_token
        if end is None or end.id in tokenizer.eog_ids:
            return "eos", ""
        return "word", tokenizer.token_text(end.id)


async def decoded_prompts(job: Job) -> list[str]:
    """Prompts as the model saw them, with special tokens written out."""
    prompts = {sequence.prompt_index: sequence.request.prompt for sequence in job.sequences}
    decode = job.engine.tokenizer.decode
    return await job.context.in_thread(lambda: [decode(ids, skip_special=False) for ids in prompts.values()])


async def verbose_completion(job: Job) -> NativeCompletion:
    """The value of `__verbose`."""
    return NativeCompletion(job, await decoded_prompts(job), return_tokens=True)


def _utf8_decoder() -> codecs.IncrementalDecoder:
    """A decoder that holds back incomplete characters and replaces invalid bytes with U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")("replace")
