"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, PlainValidator, WithJsonSchema

from server.api.common.replies.schema import TimingsReply
from server.api.common.requests.generation_fields import SamplingFields, Stops, TokenLimit
from server.api.common.schema import Reply, Schema, field, required
from server.chat.request import MAX_TOOLS

MAX_MESSAGES = 100_000  # as Anthropic has it; what they hold is bounded by the size of the body
_BLOCKS = {"type": "array", "items": {"type": "object"}}


def _texts(value: Any) -> str | list[Any] | None:
    if value is not None and not isinstance(value, str | list):
        raise ValueError("must be a string or a list of blocks")
    return value


SystemField = Annotated[
    str | list[Any] | None,
    PlainValidator(_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, _BLOCKS, {"type": "null"}]}),
]


class OutputConfig(Schema):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = field(
        "how much to think, where the model supports it", "low"
    )
    format: dict[str, Any] | None = field(
        "a JSON schema that the text must match", {"type": "json_schema", "schema": {"type": "object"}}
    )


_TOOL = {
    "name": "get_weather",
    "description": "Weather of a town",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
_THINKING = {"type": "enabled", "budget_tokens": 1024}


class MessageInput(Schema):
    """The fields that become the prompt."""

    model: str | None = field("may be left out if one model is served", "stories", max_length=512)
    messages: Annotated[list[dict[str, Any]], FailFast()] = Field(
        description="turns of user and assistant, as text or blocks: `text`, `tool_use`, `tool_result`, "
        "`thinking`; turns of one role in a row are one; a last one of the assistant is gone on with",
        examples=[[{"role": "user", "content": "Tell me a story."}]],
        max_length=MAX_MESSAGES,
    )
    system: SystemField = field("goes before the messages, as text or blocks of type `text`", "Be brief.")
    tools: list[dict[str, Any]] | None = field(
        "tools of the client's own that may be called", [_TOOL], max_length=MAX_TOOLS
    )
    tool_choice: dict[str, Any] | None = field(
        "`auto`, `any`, `none`, or a `tool` by its name; `disable_parallel_tool_use`: at most one call",
        {"type": "tool", "name": "get_weather"},
    )
    thinking: dict[str, Any] | None = field(
        "`enabled` with `budget_tokens`, `adaptive`, or `disabled`; default: as the model does by itself",
        _THINKING,
    )
    output_config: OutputConfig | None = field("how to answer", {"effort": "low"})
    output_format: dict[str, Any] | None = field(
        "older name of `output_config.format`", {"type": "json_schema", "schema": {"type": "object"}}
    )
    context_management: dict[str, Any] | None = field(
        "`edits`: `clear_thinking_20251015` leaves out the thinking of earlier turns; others have no effect",
        {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    chat_template_kwargs: dict[str, Any] | None = field(
        "further variables for the model's chat template", {"enable_thinking": False}
    )


class MessageRequest(MessageInput, SamplingFields):
    """The fields of the official API and those that this server adds."""

    max_tokens: TokenLimit | None = Field(
        description="most tokens to generate; -1 or null: until the context is full", examples=[256]
    )
    stop_sequences: Stops | None = field("end before the first of these strings", ["The end"])


class BlockReply(Reply):
    """A text, thinking or tool-use block; each type has fields of its own."""

    type: str = required("`text`, `thinking` or `tool_use`", "text")


class MessageUsage(Reply):
    input_tokens: int = required("of the prompt, without those of the prefix cache", 12)
    cache_read_input_tokens: int = required("of the prompt, taken from the prefix cache", 100)
    cache_creation_input_tokens: int = required("always 0: nothing is paid for", 0)
    output_tokens: int = required("generated", 64)
    output_tokens_details: dict[str, int] = required("parts of `output_tokens`", {"thinking_tokens": 0})
    timings: TimingsReply = required("time and tokens, values in force", {"predicted_n": 64, "n_batch": 256})


class MessageReply(Reply):
    """The complete message."""

    id: str = required("of the message", "msg_0123456789abcdef01234567")
    type: str = required("always `message`", "message")
    role: str = required("always `assistant`", "assistant")
    model: str = required("that answered", "stories")
    content: list[BlockReply] = required("what the model generated", [{"type": "text"}])
    stop_reason: str | None = required(
        "`end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `model_context_window_exceeded`", "end_turn"
    )
    stop_sequence: str | None = required("the string that ended the text", "The end")
    usage: MessageUsage = required("tokens", {"input_tokens": 12, "output_tokens": 64})
    context_management: dict[str, Any] | None = field(
        "the edits that were applied, where `context_management` asks for some", {"applied_edits": []}
    )
    tokens: list[int] | None = field("token ids, where `return_tokens` asks for them", [15043, 2787])
    warnings: list[str] | None = field("fields of the request that had no effect", ["metadata has no effect"])


class CountReply(Reply):
    input_tokens: int = required("of the prompt", 112)
    warnings: list[str] | None = field("fields of the request that had no effect", ["metadata has no effect"])
