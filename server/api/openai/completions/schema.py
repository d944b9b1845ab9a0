"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from server.api.common.replies.schema import PROMPT_LOGPROBS, PromptLogprob, TimingsReply, UsageReply
from server.api.common.requests.generation_fields import IDS_SCHEMA, GenerationFields, is_token
from server.api.common.requests.output_fields import GuidedFields, StructuredFields
from server.api.common.schema import Reply, field, required

MAX_PROMPTS = 4096
Prompts = list[str | list[int]]


def _prompts(value: Any) -> Prompts:
    """The prompts, from a string, a list of token ids, or a list of either.

    Ids are validated later, once it is known that they are few enough for a session.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValueError("must be a string, a list of token ids, or a list of either")
    if not value:
        raise ValueError("the list is empty")
    if is_token(value[0]):
        return [value]
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"may hold at most {MAX_PROMPTS} prompts, not {len(value)}")
    if not all(isinstance(item, str) or (isinstance(item, list) and item) for item in value):
        raise ValueError("every item must be a string or a non-empty list of token ids")
    return value


_LIST = {"type": "array", "items": {"anyOf": [{"type": "string"}, IDS_SCHEMA]}, "maxItems": MAX_PROMPTS}
PromptField = Annotated[
    Prompts,
    PlainValidator(_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, IDS_SCHEMA, _LIST]}),
]


class CompletionRequest(StructuredFields, GuidedFields, GenerationFields):
    prompt: PromptField = required("text, token ids, or a list of either", "Once upon a time")
    suffix: str | None = field(
        "the text after the gap to fill (400 if the model has no fill-in-the-middle tokens)", "\n\nThe end."
    )
    max_tokens: int | None = field(
        "maximum number of tokens to generate; default and -1: until the context is full; 0: only prefill, "
        "for `echo` or to fill the prefix cache",
        64,
        ge=-1,
        le=2**31 - 1,
    )
    echo: bool | None = field("include the prompt in the text and the log-probabilities", False)
    logprobs: int | None = field(
        "log-probabilities, including the N most likely tokens: natural logs of the unmodified softmax",
        3,
        ge=0,
        le=20,
    )
    best_of: int | None = field(
        "generate this many choices and return the `n` with the highest log-probability per token; not with "
        "`stream`",
        4,
        ge=1,
        le=2**31 - 1,
    )


class LogprobsReply(Reply):
    tokens: list[str] = required("the tokens' texts", [" there"])
    token_logprobs: list[float | None] = required(
        "natural logs; null for the first of an echoed prompt", [-0.5]
    )
    top_logprobs: list[dict[str, float] | None] | None = required(
        "the most likely tokens at each position, and the sampled one", [{" there": -0.5, " was": -1.25}]
    )
    text_offset: list[int] = required("offset of each token in the text, in characters", [16])


class CompletionChoice(Reply):
    index: int = required("prompt x n + choice", 0)
    text: str = required("the generated text, after the prompt if that is echoed", " there was a cat.")
    logprobs: LogprobsReply | None = required("null unless requested", None)
    finish_reason: str | None = required("stop or length; null before the end", "stop")
    tokens: list[int] | None = field("ids, with `return_tokens`", [727, 471])
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = field(
        "log-probabilities of the prompt's tokens, if requested; null for the first", PROMPT_LOGPROBS
    )


class CompletionReply(Reply):
    """The complete response, and also each chunk of a stream."""

    id: str = required("the same in all chunks", "cmpl-2f1c9a0d4b6e4f7a8c3d5e6f")
    object: str = Field("text_completion", description="always this", examples=["text_completion"])
    created: int = required("seconds since 1970", 1_790_000_000)
    model: str = required("the served name", "stories")
    system_fingerprint: str = required("if it changes, the same seed may give another text", "b41c7d20a9")
    choices: list[CompletionChoice] = required(
        "one per prompt and choice", [{"index": 0, "text": " there was a cat.", "finish_reason": "stop"}]
    )
    usage: UsageReply | None = required(
        "token counts, summed over the choices",
        {"prompt_tokens": 5, "completion_tokens": 64, "total_tokens": 69},
    )
    timings: TimingsReply = required(
        "timings; in a stream, in the last chunk", {"prompt_n": 5, "n_batch": 256}
    )
    warnings: list[str] | None = field("request fields that had no effect", ["user has no effect"])
