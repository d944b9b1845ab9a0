"""Requests of Ollama's API."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from server.api.common.requests.generation_fields import BiasOfText, LogprobFields, SequenceFields, TokenIds
from server.api.common.requests.keep_alive import KeepAlive
from server.api.common.requests.tool_fields import CALL_EXAMPLE, TOOL_EXAMPLE, ToolCall, ToolField
from server.api.common.schema import INT_MAX, MAX_MESSAGES, Schema, field, required
from server.chat.request import MAX_TOOLS

ModelName = Annotated[str, Field(min_length=1, max_length=512)]
_ROLES = Literal["system", "user", "assistant", "tool"]
Role = Annotated[_ROLES, BeforeValidator(lambda role: role.lower() if isinstance(role, str) else role)]
_HELLO = [{"role": "user", "content": "Hello"}]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [{"model": "stories", "stream": False, **fields}]})


class OllamaOptions(SequenceFields):
    """Other options have no effect: they belong to the server (`num_gpu`), or are not supported."""

    random_seed = -1
    names: ClassVar = {"batch_size": ("num_batch", "batch_size", "n_batch"), "n_keep": ("num_keep", "n_keep")}
    place = "options."
    num_predict: int | None = field(
        "maximum number of tokens to generate; below 0: no limit", 256, ge=-2, le=INT_MAX
    )
    num_ctx: int | None = field("no effect: the context is --context-size", 4096, ge=0, le=INT_MAX)
    num_keep: int | None = field("another name of `n_keep`", 0, ge=-1, le=INT_MAX)
    num_batch: int | None = field("another name of `batch_size`", 256, ge=1, le=INT_MAX)
    logit_bias: BiasOfText | None = field("token id → number added to its logit", {"263": -2.5})


class OllamaModelFields(Schema):
    model: ModelName = required("a served model, with or without `:latest`", "stories")
    keep_alive: KeepAlive | None = field(
        "seconds or a duration without a request after which a model of --models-dir is unloaded; below 0: "
        "never. Models of --model stay loaded",
        "5m",
    )


class OllamaFields(LogprobFields, OllamaModelFields):
    stream: bool | None = Field(True, description="stream the response as lines of JSON", examples=[False])
    options: OllamaOptions | None = field("generation options", {"num_predict": 64, "temperature": 0})
    format: Literal["", "json"] | dict[str, Any] | None = field(
        "JSON schema that the output must match; `json`: any object", "json"
    )
    think: bool | Literal["low", "medium", "high", "max"] | None = field(
        "whether to reason, or how much", False
    )


class OllamaGenerateRequest(OllamaFields):
    model_config = _example(prompt="Why is the sky blue?")

    prompt: str | None = field("the prompt; without one, nothing is generated", "Why is the sky blue?")
    suffix: str | None = field("the text after the gap to fill", " That is why.")
    system: str | None = field("the system message", "Be brief.")
    raw: bool | None = field("true: complete the prompt as it is, without the chat template", True)
    context: TokenIds | None = field(
        "`context` of an earlier answer, which this request continues", [1, 450, 1900]
    )
    images: list[Any] | None = field("refused: images are not supported", ["iVBORw0KGgo="])
    template: str | None = field("refused: the template is the model's own, or that of --chat-template", "")


class OllamaMessage(Schema):
    role: Role = required("the author of the message", "user")
    content: str | None = field("the text", "Hello")
    thinking: str | None = field("the assistant's reasoning", "The user greets me.")
    tool_calls: list[ToolCall] | None = field("the assistant's tool calls", [CALL_EXAMPLE], fail_fast=True)
    tool_name: str | None = field("of a result: the name of the tool", "get_weather")
    tool_call_id: str | None = field(
        "of a result: the id of its call; default: the first call without a result", "call_1"
    )
    images: list[Any] | None = field("refused: images are not supported", ["iVBORw0KGgo="])


class OllamaChatRequest(OllamaFields):
    model_config = _example(messages=_HELLO)

    messages: list[OllamaMessage] | None = field("the conversation", _HELLO, max_length=MAX_MESSAGES)
    tools: list[ToolField] | None = field(
        "the tools that may be called", [TOOL_EXAMPLE], max_length=MAX_TOOLS
    )
    tool_choice: Literal["none", "auto", "required"] | None = field("as in OpenAI's API", "auto")


class OllamaEmbeddingFields(OllamaModelFields):
    options: dict[str, Any] | None = field("no effect", {"num_ctx": 4096})
    truncate: bool | None = field("true: truncate texts that are too long; otherwise they are refused", True)


class OllamaEmbedRequest(OllamaEmbeddingFields):
    input: str | list[str] = required("one text or several", ["Once", "a little cat"])
    dimensions: int | None = field("truncate vectors to this many dimensions", 4, ge=1, le=INT_MAX)


class OllamaEmbeddingsRequest(OllamaEmbeddingFields):
    prompt: str | None = field("a text", "Once upon a time")


class OllamaNameRequest(Schema):
    model: ModelName = required("also `name`", "stories", validation_alias=AliasChoices("model", "name"))


class OllamaPullRequest(OllamaNameRequest):
    model_config = _example(model="me/Tales-GGUF")

    stream: bool | None = Field(True, description="report the progress as lines of JSON", examples=[False])
