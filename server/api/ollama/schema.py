"""Requests and replies of Ollama's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from server.api.common.requests.generation_fields import SequenceFields, TokenIds
from server.api.common.requests.tools import TOOL_EXAMPLE, ToolField
from server.api.common.schema import INT_MAX, Reply, Schema, field, required
from server.chat.tool_calls.tool import MAX_TOOLS

MAX_MESSAGES = 4096
_DURATION = r"^(0|[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"  # as Go writes it
Seconds = Annotated[float, Field(ge=-INT_MAX, le=INT_MAX)]
KeepAlive = Seconds | Annotated[str, Field(pattern=_DURATION)]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]


class OllamaOptions(SequenceFields):
    """Others have no effect: they are options of the server (`num_gpu`), or of what it does not have."""

    num_predict: int | None = field("maximum tokens to generate; below 0: no limit", 256, ge=-2, le=INT_MAX)
    num_ctx: int | None = field("no effect: the context is --context-size", 4096, ge=0, le=INT_MAX)
    num_batch: int | None = field("another name of `batch_size`", 256, ge=1, le=INT_MAX)


class OllamaModelFields(Schema):
    model: ModelName = Field(description="a served model, with or without `:latest`", examples=["stories"])
    keep_alive: KeepAlive | None = field("no effect: models stay loaded, as with -1", "5m")


class OllamaFields(OllamaModelFields):
    """What both generating routes take."""

    stream: bool | None = Field(True, description="answer as lines of JSON", examples=[False])
    options: OllamaOptions | None = field(
        "sampling and generation options", {"num_predict": 64, "temperature": 0}
    )
    format: Literal["", "json"] | dict[str, Any] | None = field(
        "a JSON schema, or `json` for any JSON object", "json"
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = field(
        "whether, or how much, the model reasons before it answers; default: as the chat template has it",
        False,
    )
    logprobs: bool | None = field("return log-probabilities (natural, of the unmodified softmax)", True)
    top_logprobs: int | None = field("also of the N most likely tokens; requires `logprobs`", 5, ge=0, le=20)


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{"model": "stories", "stream": False, **fields}]})


class OllamaGenerateRequest(OllamaFields):
    model_config = _example(prompt="Why is the sky blue?")

    prompt: str | None = field("the prompt; without it nothing is generated", "Why is the sky blue?")
    suffix: str | None = field("the text after the gap to fill", " That is why.")
    system: str | None = field("the system message", "Be brief.")
    raw: bool | None = field("true: continue the prompt as it is, without the chat template", True)
    context: TokenIds | None = field("`context` of an earlier answer, which this follows", [1, 450, 1900])
    images: list[Any] | None = field("refused: images are not supported", ["iVBORw0KGgo="])
    template: str | None = field("refused: templates are the model's own, or --chat-template", "")


class OllamaTool(ToolField):
    type: str = Field("function", description="always `function`", examples=["function"])


_HELLO = [{"role": "user", "content": "Hello"}]
_CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
_ROLES = Literal["system", "user", "assistant", "tool"]
Role = Annotated[_ROLES, BeforeValidator(lambda role: role.lower() if isinstance(role, str) else role)]


class OllamaFunction(Schema):
    name: str = Field(description="the tool's name", examples=["get_weather"])
    arguments: dict[str, Any] | None = field("the arguments, by name", {"city": "Paris"})


class OllamaCall(Schema):
    id: str | None = field("the id that the result names in `tool_call_id`", "call_1")
    function: OllamaFunction = Field(description="the function called", examples=[_CALL])


class OllamaMessage(Schema):
    role: Role = Field(description="the author of the message", examples=["user"])
    content: str | None = field("the text", "Hello")
    thinking: str | None = field("of the assistant: its reasoning", "The user greets me.")
    tool_calls: list[OllamaCall] | None = field("calls of the assistant", [{"function": _CALL}])
    tool_name: str | None = field("of a result: the tool called", "get_weather")
    tool_call_id: str | None = field(
        "of a result: its call's id; default: the first call without a result", "call_1"
    )
    images: list[Any] | None = field("refused: images are not supported", ["iVBORw0KGgo="])

    @field_validator("thinking", "tool_calls", mode="before")
    @classmethod
    def _is_the_assistants(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("role", "assistant") != "assistant":
            raise ValueError("only assistant messages may have this field")
        return value


class OllamaChatRequest(OllamaFields):
    model_config = _example(messages=_HELLO)

    messages: list[OllamaMessage] | None = field(
        "the conversation; without messages nothing is generated", _HELLO, max_length=MAX_MESSAGES
    )
    tools: list[OllamaTool] | None = field(
        "tools that the model may call", [TOOL_EXAMPLE], max_length=MAX_TOOLS
    )
    tool_choice: Literal["none", "auto", "required"] | None = field("as OpenAI's API has it", "auto")


class OllamaEmbedFields(OllamaModelFields):
    options: dict[str, Any] | None = field("no effect", {"num_ctx": 4096})


class OllamaEmbedRequest(OllamaEmbedFields):
    input: str | list[str] = Field(description="a text, or several", examples=[["Once", "a little cat"]])
    truncate: bool | None = field("false: refuse texts that are too long, else they are cut", True)
    dimensions: int | None = field("truncate vectors to this many dimensions", 4, ge=1, le=INT_MAX)


class OllamaEmbeddingsRequest(OllamaEmbedFields):
    prompt: str | None = field("a text", "Once upon a time")


class OllamaNameRequest(Schema):
    model: ModelName | None = field("its name", "stories")
    name: ModelName | None = field("older name of `model`", "stories")


class OllamaPullRequest(OllamaNameRequest):
    model_config = _example(model="me/Tales-GGUF")

    stream: bool | None = Field(True, description="report progress in lines of JSON", examples=[False])


class OllamaReply(Reply):
    """The whole answer, with counts of tokens and nanoseconds, or the last line of a stream."""

    model: str = required("as the request names it", "stories")
    created_at: str = required("when it was sent", "2026-01-31T12:00:00.123456Z")
    message: dict[str, Any] | None = field("of /api/chat", {"role": "assistant", "content": "Hello!"})
    response: str | None = field("of /api/generate", "Because of Rayleigh scattering.")
    done: bool = required("false in the lines before the last", True)
    done_reason: str | None = field("stop, length, load or unload", "stop")
    warnings: list[str] | None = field("fields without effect", ["options.num_gpu has no effect"])
