"""POST /v1/chat/completions and /apply-template."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from server.api.common.replies.schema import PROMPT_LOGPROBS, PromptLogprob, TimingsReply, UsageReply
from server.api.common.requests.generation_fields import GenerationFields, LogprobFields, TokenLimit
from server.api.common.requests.output_fields import GuidedFields, StructuredFields
from server.api.common.requests.tool_fields import CALL_EXAMPLE, TOOL_EXAMPLE, ToolCall, ToolField
from server.api.common.schema import MAX_MESSAGES, Reply, Schema, field, required
from server.chat.request import MAX_TOOLS

MAX_CALLS = 256  # in one message
ROLES = ("system", "developer", "user", "assistant", "tool")
BUDGET = 2**31 - 1


def _content(value: Any) -> str | list[dict[str, str]] | None:
    """A string, or parts of type text."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of parts")
    parts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise ValueError('every part must be an object with a "type"')
        if kind not in ("text", "refusal"):
            raise ValueError(f"parts of type {kind[:32]!r} are not supported by this model; send text")
        if not isinstance(part.get(kind), str):
            raise ValueError(f'a part of type {kind!r} needs a string "{kind}"')
        parts.append({"type": "text", "text": part[kind]})
    return parts


def _role(value: Any) -> str:
    if value == "function":
        raise ValueError("'function' is not supported; send results of tools with the role 'tool'")
    if value not in ROLES:
        raise ValueError(f"must be one of {', '.join(ROLES)}")
    return str(value)


_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]}
ContentField = Annotated[
    str | list[dict[str, str]] | None, PlainValidator(_content), WithJsonSchema(_CONTENT)
]
Role = Annotated[str, PlainValidator(_role), WithJsonSchema({"type": "string", "enum": list(ROLES)})]


class Message(Schema):
    role: Role = Field(description="the author of the message", examples=["user"])
    content: ContentField = field("text, or a list of text parts", "Hello")
    name: str | None = field("name of the author or the tool", "Ann", max_length=256)
    tool_calls: list[ToolCall] | None = field(
        "the assistant's tool calls", [CALL_EXAMPLE], max_length=MAX_CALLS
    )
    tool_call_id: str | None = field("of a result: the id of its call", "call_1", max_length=256)
    reasoning_content: str | None = field(
        "the assistant's reasoning before the message", "The user greets me."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Message:
        assistant = self.role == "assistant"
        if self.content is None and not assistant:
            raise ValueError("content: is required")
        if self.tool_calls and not assistant:
            raise ValueError("tool_calls: only assistant messages have them")
        if self.reasoning_content and not assistant:
            raise ValueError("reasoning_content: only assistant messages have it")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError("tool_call_id: only messages with the role 'tool' have it")
        return self


_CHOICE = {
    "anyOf": [
        {"type": "string", "enum": ["none", "auto", "required"]},
        {"type": "object", "properties": {"type": {"enum": ["function", "allowed_tools"]}}},
        {"type": "null"},
    ]
}


class ChatFields(Schema):
    """The fields that become the prompt."""

    messages: list[Message] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="the conversation, oldest message first",
        examples=[[{"role": "user", "content": "Hello"}]],
    )
    tools: list[ToolField] | None = field(
        "the functions that the model may call", [TOOL_EXAMPLE], max_length=MAX_TOOLS
    )
    tool_choice: Annotated[Any, WithJsonSchema(_CHOICE)] = field(
        'none: no calls; auto (default): the model decides; required: at least one; or {"type": "function", '
        '"function": {"name"}}, or {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required", '
        '"tools"}}',
        "auto",
    )
    parallel_tool_calls: bool | None = field(
        "false: at most one call per answer (default: several, if the model's template can show them)",
        True,
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = field(
        "reasoning effort, for templates that support it; none: no reasoning", "low"
    )
    reasoning_format: Literal["none", "auto", "deepseek"] | None = field(
        "none: reasoning stays in the content; otherwise it is in `reasoning_content`", "auto"
    )
    reasoning_budget_tokens: int | None = field(
        "maximum number of reasoning tokens; -1: no limit", 512, ge=-1, le=BUDGET
    )
    thinking_budget_tokens: int | None = field(
        "another name of `reasoning_budget_tokens`", 512, ge=-1, le=BUDGET
    )
    reasoning_budget: int | None = field("another name of `reasoning_budget_tokens`", 512, ge=-1, le=BUDGET)
    chat_template_kwargs: dict[str, Any] | None = field(
        "extra variables for the chat template", {"enable_thinking": False}
    )
    add_generation_prompt: bool | None = field(
        "false: end the prompt after the last message; true: begin a new answer even after an assistant "
        "message (default: continue a final assistant message, otherwise begin a new answer)",
        True,
    )
    continue_final_message: bool | Literal["content", "reasoning_content"] | None = field(
        "whether the answer continues the last message, which must be the assistant's", True
    )


class ChatRequest(ChatFields, StructuredFields, GuidedFields, LogprobFields, GenerationFields):
    max_tokens: TokenLimit | None = field("older name of `max_completion_tokens`", 256)
    max_completion_tokens: TokenLimit | None = field(
        "maximum number of tokens to generate; default and -1: until the context is full", 256
    )


class TemplateRequest(ChatFields):
    model: str | None = field("optional if only one model is served", "stories", max_length=512)


class TemplateReply(Reply):
    prompt: str = required("the messages rendered with the chat template", "<|user|>Hello<|assistant|>")


class FunctionReply(Reply):
    name: str = required("name of the tool", "get_weather")
    arguments: str = required("JSON text", '{"city": "Paris"}')


class ToolCallReply(Reply):
    id: str = required("the id for the `tool_call_id` of the result", "call_1")
    type: str = required("always function", "function")
    function: FunctionReply = required("the function to call", CALL_EXAMPLE["function"])


class ChatMessageReply(Reply):
    role: str = required("always assistant", "assistant")
    content: str | None = required("the text; null if there are only calls", "Hello!")
    reasoning_content: str | None = field("the model's reasoning; absent if there is none", "A greeting.")
    tool_calls: list[ToolCallReply] | None = field("tool calls; absent if there are none", [CALL_EXAMPLE])


class TokenLogprob(Reply):
    token: str = required("the token's text; partial characters are escaped", " Hello")
    logprob: float = required("natural log of its probability", -0.25)
    bytes: list[int] | None = required("the token's text in UTF-8", [32, 72, 101, 108, 108, 111])


class TokenLogprobs(TokenLogprob):
    top_logprobs: list[TokenLogprob] = required(
        "the most likely tokens at this position", [{"token": " Hi", "logprob": -1.5}]
    )


class ChatLogprobs(Reply):
    content: list[TokenLogprobs] | None = required(
        "one entry per token", [{"token": " Hello", "logprob": -0.25}]
    )


class ChatChoice(Reply):
    index: int = required("index of the choice", 0)
    message: ChatMessageReply = required("the answer", {"role": "assistant", "content": "Hello!"})
    logprobs: ChatLogprobs | None = required("null unless requested", None)
    finish_reason: str = required("stop, length or tool_calls", "stop")
    tokens: list[int] | None = field("token ids, with `return_tokens`", [459])


class ChatReply(Reply):
    """The complete response. Chunks have `delta` in place of `message`."""

    id: str = required("the same in all chunks", "chatcmpl-2f1c9a0d4b6e4f7a8c3d5e6f")
    object: str = required("chat.completion, of chunks chat.completion.chunk", "chat.completion")
    created: int = required("seconds since 1970", 1_790_000_000)
    model: str = required("the served name", "stories")
    system_fingerprint: str = required("if it changes, the same seed may give another text", "b41c7d20a9")
    choices: list[ChatChoice] = required(
        "the choices, in order of their index", [{"index": 0, "finish_reason": "stop"}]
    )
    usage: UsageReply = required(
        "totals over all choices; in a stream, in the last chunk", {"prompt_tokens": 112}
    )
    timings: TimingsReply = required(
        "totals over all choices; in a stream, in the last chunk", {"prompt_n": 12}
    )
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = field(
        "log-probabilities of the prompt's tokens, if requested; null for the first", PROMPT_LOGPROBS
    )
    warnings: list[str] | None = field("request fields that had no effect, if any", ["user has no effect"])
