"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from server.schemas.common import GenerationFields, Reply, TimingsReply, UsageReply, is_token

MAX_PROMPTS = 4096
Prompts = list[str | list[int]]


def _prompts(value: Any) -> Prompts:
    """A string, a list of token ids, or a list of either → list of prompts.

    Ids are looked at later, when it is known that they are few enough for a session.
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


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_ITEM = {"anyOf": [{"type": "string"}, _IDS]}
PromptField = Annotated[
    Prompts,
    PlainValidator(_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, _IDS, {"type": "array", "items": _ITEM}]}),
]


class CompletionRequest(GenerationFields):
    prompt: PromptField = Field(description="text, token ids, or a list of either")
    max_tokens: int | None = Field(
        None, ge=0, le=2**31 - 1, description="default: until the context is full; 0 only with `echo`"
    )
    echo: bool | None = Field(None, description="begin the text with the prompt")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="natural logs of the unmodified softmax, also of the N most likely tokens",
    )
    best_of: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="make so many, show the `n` likeliest (log-probability per token); not with `stream`",
    )


class LogprobsReply(Reply):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(Reply):
    index: int
    text: str
    logprobs: LogprobsReply | None
    finish_reason: str | None
    tokens: list[int] | None = None


class CompletionReply(Reply):
    """The whole response, and also each chunk of a stream."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageReply | None
    timings: TimingsReply
    warnings: list[str] | None = Field(None, description="fields of the request that had no effect")
