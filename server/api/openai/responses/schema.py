"""POST /v1/responses and its parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.replies.schema import TimingsReply
from server.api.common.requests.generation_fields import SamplingFields, StreamOptions, TokenLimit
from server.api.common.schema import Reply, Schema, field, required
from server.chat.request import MAX_TOOLS

MAX_ID = 256
MAX_METADATA, MAX_KEY, MAX_VALUE = 16, 64, 512
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Included = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


def _input(value: Any) -> str | list[Any] | None:
    if value is not None and not isinstance(value, str | list):
        raise ValueError("must be a string or a list of items")
    return value


def _choice(value: Any) -> str | dict[str, Any] | None:
    if value is not None and not isinstance(value, str | dict):
        raise ValueError("must be a string or an object")
    return value


def _conversation(value: Any) -> str | None:
    """The id of the conversation."""
    id = value.get("id") if isinstance(value, dict) else value
    if value is not None and not (isinstance(id, str) and 0 < len(id) <= MAX_ID):
        raise ValueError(
            f"must be the id of a conversation, or an object with it, of at most {MAX_ID} characters"
        )
    return id


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("must map strings to strings")
    if len(value) > MAX_METADATA:
        raise ValueError(f"may hold at most {MAX_METADATA} pairs, not {len(value)}")
    if any(len(key) > MAX_KEY or len(text) > MAX_VALUE for key, text in value.items()):
        raise ValueError(f"keys may have {MAX_KEY} characters and values {MAX_VALUE}")
    return value


_ITEMS = {"type": "array", "items": {"type": "object"}}
InputField = Annotated[
    str | list[Any] | None,
    PlainValidator(_input),
    WithJsonSchema({"anyOf": [{"type": "string"}, _ITEMS, {"type": "null"}]}),
]
ToolChoiceField = Annotated[
    str | dict[str, Any] | None,
    PlainValidator(_choice),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}),
]
_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
_NAMED = {"type": "object", "properties": {"id": _ID}, "required": ["id"]}
ConversationField = Annotated[
    str | None,
    PlainValidator(_conversation),
    WithJsonSchema({"anyOf": [_ID, _NAMED, {"type": "null"}]}),
]
Metadata = Annotated[
    dict[str, str] | None,
    PlainValidator(_metadata),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "object",
                    "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
                    "maxProperties": MAX_METADATA,
                },
                {"type": "null"},
            ]
        }
    ),
]


class ReasoningFields(Schema):
    effort: Effort | None = field("reasoning effort, if the model supports it", "low")
    summary: Literal["auto", "concise", "detailed"] | None = field(
        "no effect: reasoning is returned in full", "auto"
    )


class TextFields(Schema):
    format: dict[str, Any] | None = field(
        "format of the text: `text`, `json_object` or `json_schema`", {"type": "json_object"}
    )
    verbosity: Literal["low", "medium", "high"] | None = field("no effect", "medium")


_TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


class ResponseInput(Schema):
    """The fields that become the prompt."""

    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    input: InputField = field(
        "text, or items: messages, function calls and their outputs, reasoning, references to stored items",
        [{"role": "user", "content": "Tell me a story."}],
    )
    instructions: str | None = field("system message before everything else", "Be brief.")
    previous_response_id: str | None = field(
        "id of a stored response to continue", "resp_0123456789abcdef01234567", max_length=256
    )
    conversation: ConversationField = field(
        "continue a conversation of /v1/conversations, given by id or `{id}`; input and output are added to "
        "it",
        "conv_0123456789abcdef01234567",
    )
    tools: list[dict[str, Any]] | None = field(
        "tools that the client runs: functions, custom tools, namespaces of both, shells, apply_patch; tools"
        " that OpenAI runs have no effect",
        [_TOOL],
        max_length=MAX_TOOLS,
    )
    tool_choice: ToolChoiceField = field(
        "`none`, `auto`, `required`, or a function by name", {"type": "function", "name": "get_weather"}
    )
    parallel_tool_calls: bool | None = field("false: at most one call (default: true)", True)
    reasoning: ReasoningFields | None = field("reasoning options", {"effort": "low"})
    text: TextFields | None = field("format of the text", {"format": {"type": "json_object"}})
    truncation: Literal["auto", "disabled"] | None = field(
        "only `disabled` is supported: input that does not fit is refused", "disabled"
    )
    chat_template_kwargs: dict[str, Any] | None = field(
        "extra variables for the chat template", {"enable_thinking": False}
    )


class ResponseRequest(ResponseInput, SamplingFields):
    """The fields of the official API and those that this server adds."""

    max_output_tokens: TokenLimit | None = field(
        "maximum number of tokens to generate; default and -1: until the context is full", 256
    )
    include: list[Included] | None = field(
        "additional output: `message.output_text.logprobs`, `reasoning.encrypted_content` (for clients that "
        "send back only that; it is not encrypted); others have no effect",
        ["message.output_text.logprobs"],
        max_length=64,
    )
    top_logprobs: int | None = field(
        "also return the log-probabilities of the N most likely tokens; needs `include`", 2, ge=0, le=20
    )
    stream_options: StreamOptions | None = field("no effect", {"include_obfuscation": False})
    store: bool | None = field("store the response (default: true)", False)
    metadata: Metadata = field("returned with the response", {"topic": "cats"})
    background: bool | None = field(
        "respond at once with status `queued`, or with events, and generate in the background; `GET "
        "/v1/responses/{id}` returns the result. Requires `store`",
        True,
    )
    user: str | None = field("no effect", "user-1", max_length=512)


class ItemReply(Reply):
    """A message, function call or reasoning item; each type has fields of its own."""

    id: str = required("id of the item", "msg_0123456789abcdef01234567")
    type: str = required("`message`, `function_call` or `reasoning`", "message")
    status: str = required("`completed`, or `incomplete` if a limit cut it off", "completed")


class InputTokensDetails(Reply):
    cached_tokens: int = required("input tokens taken from the prefix cache", 100)
    cache_write_tokens: int = required("always 0: there is no charge", 0)


class OutputTokensDetails(Reply):
    reasoning_tokens: int = required("output tokens spent on reasoning", 0)


class ResponseUsage(Reply):
    input_tokens: int = required("tokens of the prompt", 112)
    input_tokens_details: InputTokensDetails = required(
        "parts of `input_tokens`", {"cached_tokens": 100, "cache_write_tokens": 0}
    )
    output_tokens: int = required("generated", 64)
    output_tokens_details: OutputTokensDetails = required("parts of `output_tokens`", {"reasoning_tokens": 0})
    total_tokens: int = required("both", 176)


class ResponseReply(Reply):
    """The complete response. It repeats most fields of the request."""

    id: str = required("id of the response", "resp_0123456789abcdef01234567")
    object: str = required("always `response`", "response")
    created_at: int = required("Unix time in seconds", 1767225600)
    status: str = required(
        "`completed`, `incomplete`, `queued`, `in_progress`, `failed` or `cancelled`", "completed"
    )
    model: str = required("that answered", "stories")
    output: list[ItemReply] = required(
        "what the model generated", [{"id": "msg_01", "type": "message", "status": "completed"}]
    )
    incomplete_details: dict[str, str] | None = required(
        "why the response ended early", {"reason": "max_output_tokens"}
    )
    usage: ResponseUsage | None = required(
        "tokens", {"input_tokens": 12, "output_tokens": 8, "total_tokens": 20}
    )
    timings: TimingsReply | None = field(
        "timings, token counts, effective values; at the end", {"predicted_n": 8, "n_batch": 256}
    )
    tokens: list[int] | None = field("token ids, if `return_tokens` is set", [15043, 2787])
    warnings: list[str] | None = field("request fields that had no effect", ["user has no effect"])


class InputTokensReply(Reply):
    object: str = required("always `response.input_tokens`", "response.input_tokens")
    input_tokens: int = required("tokens of the prompt", 112)
    warnings: list[str] | None = field("request fields that had no effect", ["user has no effect"])


class ItemListReply(Reply):
    object: str = required("always `list`", "list")
    data: list[ItemReply] = required("items", [{"id": "msg_01", "type": "message", "status": "completed"}])
    first_id: str | None = required("id of the first item", "msg_01")
    last_id: str | None = required("id of the last item", "msg_01")
    has_more: bool = required("whether there are further items", False)


class DeletedReply(Reply):
    id: str = required("id of the response", "resp_0123456789abcdef01234567")
    object: str = required("always `response.deleted`", "response.deleted")
    deleted: bool = required("always true", True)
