"""Requests and replies of Ollama's API."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema

from server.api.common.requests.generation_fields import IDS_SCHEMA, SequenceFields, is_token
from server.api.common.schema import INT_MAX, Reply, Schema, field, required
from server.chat.tool_calls.tool import MAX_TOOLS

MAX_MESSAGES = 4096
DURATION = r"0|[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+"  # as Go writes it
FOREVER = -1.0  # the value of negative durations


def _keep_alive(value: Any) -> float:
    """0, FOREVER or, in place of any other duration, 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= INT_MAX
    if not number and not (isinstance(value, str) and re.fullmatch(DURATION, value)):
        raise ValueError('must be a number of seconds or a duration such as "5m"')
    return FOREVER if str(value)[0] == "-" else float(bool(re.search("[1-9]", str(value))))


def _format(value: Any) -> str | dict[str, Any]:
    if isinstance(value, dict) or value in ("", "json"):
        return value  # type: ignore[no-any-return]
    raise ValueError('must be "json" or a JSON schema')


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(map(is_token, value)):
        raise ValueError("must be a list of token ids")
    return value


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a string or a list of strings")
    return texts


_STRING = {"type": "string"}
_SECONDS = {"type": "number", "minimum": -INT_MAX, "maximum": INT_MAX}
_FORMAT = {"anyOf": [{"enum": ["", "json"]}, {"type": "object"}]}
_DURATION = {"anyOf": [_SECONDS, {**_STRING, "pattern": f"^({DURATION})$"}]}
_TEXTS = {"anyOf": [_STRING, {"type": "array", "items": _STRING}]}
KeepAlive = Annotated[float, PlainValidator(_keep_alive), WithJsonSchema(_DURATION)]
Format = Annotated[str | dict[str, Any], PlainValidator(_format), WithJsonSchema(_FORMAT)]
Ids = Annotated[list[int], PlainValidator(_ids), WithJsonSchema(IDS_SCHEMA)]
Texts = Annotated[list[str], PlainValidator(_texts), WithJsonSchema(_TEXTS)]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Objects = list[dict[str, Any]]


class OllamaOptions(SequenceFields):
    """Others have no effect: they are options of the server (`num_gpu`), or of what it does not have."""

    num_predict: int | None = field("most tokens to generate; below 0: no limit", 256, ge=-2, le=INT_MAX)
    num_ctx: int | None = field("no effect: the context is --context-size", 4096, ge=0, le=INT_MAX)
    num_batch: int | None = field("another name of `batch_size`", 256, ge=1, le=INT_MAX)


class OllamaFields(Schema):
    """What both generating routes take."""

    model: ModelName = Field(description="a served model, with or without `:latest`", examples=["stories"])
    stream: bool | None = Field(True, description="answer as lines of JSON", examples=[False])
    options: OllamaOptions | None = field("how to generate", {"num_predict": 64, "temperature": 0})
    format: Format | None = field('"json", or a JSON schema that the text must match', "json")
    think: bool | Literal["low", "medium", "high", "max"] | None = field(
        "whether the model reasons before it answers, or how much; default: as the model does", False
    )
    keep_alive: KeepAlive | None = field("no effect: models stay loaded, as with -1", "5m")
    logprobs: bool | None = field("natural logs of the unmodified softmax", True)
    top_logprobs: int | None = field("also of the N most likely; needs `logprobs`", 5, ge=0, le=20)


class OllamaGenerateRequest(OllamaFields):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "stories", "prompt": "Why is the sky blue?", "stream": False}]
        }
    )
    prompt: str | None = field("what to answer; without it nothing is generated", "Why is the sky blue?")
    suffix: str | None = field("the text after the gap that is filled", " That is why.")
    system: str | None = field("goes before the prompt", "Be brief.")
    raw: bool | None = field("true: continue the prompt as it is, without the chat template", True)
    context: Ids | None = field("`context` of an earlier answer, which this one follows", [1, 450, 1900])
    images: list[Any] | None = field("refused: there is no vision", ["iVBORw0KGgo="])
    template: str | None = field("refused: templates are the model's own, or --chat-template", "")


_HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
_FUNCTION = {"name": "get_weather", "parameters": {"type": "object"}}


class OllamaChatRequest(OllamaFields):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "stories", "messages": _HELLO, "stream": False}]}
    )
    messages: Objects | None = field(
        "the conversation: `role` (system, user, assistant, tool), `content`; of the assistant also "
        "`thinking` and `tool_calls`, of a tool `tool_name`; without messages nothing is generated",
        _HELLO,
        max_length=MAX_MESSAGES,
    )
    tools: Objects | None = field(
        "functions that may be called", [{"type": "function", "function": _FUNCTION}], max_length=MAX_TOOLS
    )
    tool_choice: Literal["none", "auto", "required"] | None = field("as OpenAI's API has it", "auto")


class OllamaEmbedFields(Schema):
    model: ModelName = Field(description="a served model", examples=["stories"])
    keep_alive: KeepAlive | None = field("no effect: models stay loaded, as with -1", "5m")
    options: dict[str, Any] | None = field("no effect", {"num_ctx": 4096})


class OllamaEmbedRequest(OllamaEmbedFields):
    input: Texts = Field(description="a text, or several", examples=[["Once upon a time", "a little cat"]])
    truncate: bool | None = field(
        "false: refuse texts that are too long; else cut them, with a warning", True
    )
    dimensions: int | None = field("keep so many of the first numbers", 4, ge=1, le=INT_MAX)


class OllamaEmbeddingsRequest(OllamaEmbedFields):
    prompt: str | None = field("a text", "Once upon a time")


class OllamaNameRequest(Schema):
    model: ModelName | None = field("its name", "stories")
    name: ModelName | None = field("older name of `model`", "stories")


class OllamaPullRequest(OllamaNameRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "me/Tales-GGUF", "stream": False}]})
    stream: bool | None = Field(True, description="tell of the progress in lines of JSON", examples=[False])


class OllamaReply(Reply):
    """The whole answer, with counts of tokens and nanoseconds, or the last line of a stream."""

    model: str = required("as the request names it", "stories")
    created_at: str = required("when it was sent", "2026-01-31T12:00:00.123456Z")
    message: dict[str, Any] | None = field("of /api/chat", {"role": "assistant", "content": "Hello!"})
    response: str | None = field("of /api/generate", "Because of Rayleigh scattering.")
    done: bool = required("false in the lines before the last", True)
    done_reason: str | None = field("stop, length, load or unload", "stop")
    warnings: list[str] | None = field("fields without effect", ["options.num_gpu has no effect"])
