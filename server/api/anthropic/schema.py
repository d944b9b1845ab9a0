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
        "reasoning effort, if the model supports it", "low"
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

    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    messages: Annotated[list[dict[str, Any]], FailFast()] = Field(
        description="user and assistant turns, as text or blocks: `text`, `tool_use`, `tool_result`, "
        "`thinking`; consecutive turns of one role are merged; a final assistant turn is continued",
        examples=[[{"role": "user", "content": "Tell me a story."}]],
        max_length=MAX_MESSAGES,
    )
    system: SystemField = field("system prompt, as text or blocks of type `text`", "Be brief.")
    tools: list[dict[str, Any]] | None = field(
        "the client's own tools that may be called", [_TOOL], max_length=MAX_TOOLS
    )
    tool_choice: dict[str, Any] | None = field(
        "`auto`, `any`, `none`, or a `tool` by name; `disable_parallel_tool_use`: at most one call",
        {"type": "tool", "name": "get_weather"},
    )
    thinking: dict[str, Any] | None = field(
        "`enabled` with `budget_tokens`, `adaptive`, or `disabled`; default: the model's own behaviour",
        _THINKING,
    )
    output_config: OutputConfig | None = field("effort and format of the answer", {"effort": "low"})
    output_format: dict[str, Any] | None = field(
        "older name of `output_config.format`", {"type": "json_schema", "schema": {"type": "object"}}
    )
    context_management: dict[str, Any] | None = field(
        "`edits`: `clear_thinking_20251015` removes the thinking of earlier turns; others have no effect",
        {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    chat_template_kwargs: dict[str, Any] | None = field(
        "further variables for the model's chat template", {"enable_thinking": False}
    )


class MessageRequest(MessageInput, SamplingFields):
    """The fields of the official API and those that this server adds."""

    max_tokens: TokenLimit | None = Field(
        description="maximum number of tokens to generate; -1 or null: until the context is full",
        examples=[256],
    )
    stop_sequences: Stops | None = field("stop before the first of these strings", ["The end"])


class BlockReply(Reply):
    """A text, thinking or tool-use block; each type has fields of its own."""

    type: str = required("`text`, `thinking` or `tool_use`", "text")


class MessageUsage(Reply):
    input_tokens: int = required("prompt tokens that were not in the prefix cache", 12)
    cache_read_input_tokens: int = required("prompt tokens taken from the prefix cache", 100)
    cache_creation_input_tokens: int = required("always 0: there is no charge", 0)
    output_tokens: int = required("generated", 64)
    output_tokens_details: dict[str, int] = required("parts of `output_tokens`", {"thinking_tokens": 0})
    timings: TimingsReply = required(
        "timings, token counts, effective values", {"predicted_n": 64, "n_batch": 256}
    )


class MessageReply(Reply):
    """The complete message."""

    id: str = required("id of the message", "msg_0123456789abcdef01234567")
    type: str = required("always `message`", "message")
    role: str = required("always `assistant`", "assistant")
    model: str = required("that answered", "stories")
    content: list[BlockReply] = required("what the model generated", [{"type": "text"}])
    stop_reason: str | None = required(
        "`end_turn`, `max_tokens`, `stop_sequence`, `tool_use` or `model_context_window_exceeded`", "end_turn"
    )
    stop_sequence: str | None = required("the stop string that ended the text", "The end")
    usage: MessageUsage = required("tokens", {"input_tokens": 12, "output_tokens": 64})
    context_management: dict[str, Any] | None = field(
        "the applied edits, if `context_management` asked for any", {"applied_edits": []}
    )
    tokens: list[int] | None = field("token ids, if `return_tokens` is set", [15043, 2787])
    warnings: list[str] | None = field("request fields that had no effect", ["metadata has no effect"])


class CountReply(Reply):
    input_tokens: int = required("tokens of the prompt", 112)
    warnings: list[str] | None = field("request fields that had no effect", ["metadata has no effect"])
