"""POST /v1/chat/completions and /apply-template."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from server.schemas.common import GenerationFields, Reply, Schema, TimingsReply, UsageReply

MAX_MESSAGES = 4096
ROLES = ("system", "developer", "user", "assistant")


def _content(value: Any) -> str | None:
    """A string, or parts of type text, joined by line breaks."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of parts")
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise ValueError('every part must be an object with a "type"')
        if kind not in ("text", "refusal"):
            raise ValueError(f"parts of type {kind[:32]!r} are not supported by this model; send text")
        if not isinstance(part.get(kind), str):
            raise ValueError(f'a part of type {kind!r} needs a string "{kind}"')
        texts.append(part[kind])
    return "\n".join(texts)


_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]}
ContentField = Annotated[str | None, PlainValidator(_content), WithJsonSchema(_CONTENT)]


class Message(Schema):
    role: Literal["system", "developer", "user", "assistant"]
    content: ContentField = None
    name: str | None = Field(None, max_length=256)

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError("content: is required")
        return self


class ChatFields(Schema):
    """What becomes the prompt."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="further variables for the model's chat template"
    )
    add_generation_prompt: bool | None = Field(
        None, description="false: end the prompt after the last message (default true)"
    )


class ChatRequest(ChatFields, GenerationFields):
    max_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="older name of `max_completion_tokens`"
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="default: until the context is full"
    )
    logprobs: bool | None = Field(None, description="natural logs of the unmodified softmax")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="also of the N most likely; needs `logprobs`"
    )


class TemplateRequest(ChatFields):
    model: str | None = Field(None, max_length=512)


class TemplateReply(Reply):
    prompt: str


class ChatMessageReply(Reply):
    role: str = "assistant"
    content: str


class TokenLogprob(Reply):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprobs(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Reply):
    content: list[TokenLogprobs] | None


class ChatChoice(Reply):
    index: int
    message: ChatMessageReply
    logprobs: ChatLogprobs | None
    finish_reason: str
    tokens: list[int] | None = None


class ChatReply(Reply):
    """The whole response. Chunks have `delta` in place of `message`."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageReply
    timings: TimingsReply
    warnings: list[str] | None = Field(None, description="fields of the request that had no effect")
