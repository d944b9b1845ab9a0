"""What the parsers of all APIs share: generation options, tools, unknown fields, reads of untyped objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine import exact_json
from engine.constraint.json_schema import closed
from engine.errors import ConfigError
from engine.sampling.llama_cpp import steps_of
from engine.types import Constraint, InferenceParameters
from server.api.common.requests.generation_fields import (
    GenerationFields,
    LogprobFields,
    SequenceFields,
    StreamOptions,
)
from server.api.common.requests.tool_fields import ToolCall, ToolField
from server.api.common.schema import Schema
from server.chat.request import Tool, ToolChoice
from server.errors import ApiError, missing, unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext

# Fields of the official APIs that change the answer and are not supported: refused, except at the values
# listed, which ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),  # where there is no chat
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
}
_INSTEAD = {"functions": "; send tools", "function_call": "; send tool_choice"}
# Fields of the official APIs that change nothing here; no warning at the values listed.
_IDLE: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_SAMPLING = {*SequenceFields.model_fields} & {*InferenceParameters.__struct_fields__} - {"stop_token_ids"}
_NONE: frozenset[str] = frozenset()


def check_fields(
    body: Schema, context: RequestContext, refused: Mapping[str, tuple[Any, ...]] = REFUSED
) -> None:
    """Warn about unknown fields; refuse those in `refused`, except at the values listed there."""
    for name, value in (body.model_extra or {}).items():
        if value is None or value in _IDLE.get(name, ()):
            continue
        if name in refused:
            if value in refused[name]:
                continue
            raise unsupported(name, f"is not supported by this server{_INSTEAD.get(name, '')}")
        context.warn(f"{name[:64]} has no effect")


def warn_of_unknown(
    extra: Mapping[str, Any] | None,
    where: str,
    context: RequestContext,
    refused: tuple[str, ...] = (),
    silent: tuple[str, ...] = (),
) -> None:
    """Warn about, or refuse, fields of a nested object that are not in its schema."""
    for name, value in (extra or {}).items():
        if value in (None, [], "") or name in silent:
            continue
        param = f"{where}.{name[:64]}"
        if name in refused:
            instead = "; send tool_calls" if name == "function_call" else ""
            raise unsupported(param, f"is not supported{instead}")
        context.warn(f"{param} has no effect")


def used_name(body: Schema, names: Sequence[str], place: str = "") -> str | None:
    """The name under which a request sends a field. Raises ApiError (400) if several names have different
    values.
    """
    used = [name for name in names if getattr(body, name) is not None]
    for name in used[1:]:
        if getattr(body, name) != getattr(body, used[0]):
            raise wrong(f"{place}{name}", f"differs from {used[0]}, its other name")
    return used[0] if used else None


def generation_options(
    body: SequenceFields,
    context: RequestContext,
    *,
    id_prefix: str,
    stream: bool | None,
    reports: bool = True,
    **fields: Any,
) -> GenerationOptions:
    """The shared fields; `fields` are those of `GenerationOptions` that the API reads itself.

    reports: whether the API's streams can report timings and progress.
    """
    used = {name: used_name(body, names, body.place) or name for name, names in body.names.items()}
    named = SequenceFields.model_fields if body.place else used
    context.field_names = {name: body.place + used.get(name, name) for name in named}
    for name in ("timings_per_token", "return_progress"):
        if getattr(body, name) and not reports:
            context.warn(f"{name} has no effect: this API has no events for it")
    if body.stop and "" in body.stop:
        context.warn("stop has no effect where it is an empty string")
    shared = {
        "sampling": sampling_fields(body, context),
        "stop": [stop for stop in body.stop or () if stop],
        "stop_token_ids": body.stop_token_ids or (),
        "batch_size": getattr(body, used["batch_size"]),
        "n_keep": getattr(body, used["n_keep"]) or 0,
        "speculation": body.speculative_type,
        "draft_max": body.speculative_n_max,
        "cache_prompt": body.cache_prompt is not False,
        "cache_salt": body.cache_salt or "",
        "timeout_ms": body.timeout_ms,
        "priority": body.priority,
        "lora": None if body.lora is None else [(adapter.id, adapter.scale) for adapter in body.lora],
        "slot": None if body.id_slot is None or body.id_slot < 0 else body.id_slot,
        "stream": bool(stream),
        "return_tokens": bool(body.return_tokens),
        "timings_per_token": bool(body.timings_per_token),
        "report_progress": bool(body.return_progress and stream),
    }
    return GenerationOptions(id_prefix=id_prefix, **{**shared, **fields})


def choice_options(
    body: GenerationFields, context: RequestContext, *, id_prefix: str, **fields: Any
) -> GenerationOptions:
    """The same for the routes whose responses have choices."""
    stream_options = body.stream_options
    warn_of_stream_options(stream_options, body.stream, context)
    return generation_options(
        body,
        context,
        id_prefix=id_prefix,
        stream=body.stream,
        n=body.n or 1,
        include_usage=bool(body.stream and stream_options and stream_options.include_usage),
        prompt_logprobs=_prompt_logprobs(body, context),
        **fields,
    )


def warn_of_stream_options(
    options: StreamOptions | None, stream: bool | None, context: RequestContext
) -> None:
    if options is not None:
        if not stream:
            context.warn("stream_options has no effect: stream is not true")
        if options.include_obfuscation:
            context.warn("stream_options.include_obfuscation has no effect")


def sampling_fields(body: SequenceFields, context: RequestContext) -> dict[str, Any]:
    """The sampling fields that the client set."""
    fields = {name: value for name in _SAMPLING if (value := getattr(body, name)) is not None}
    if body.seed == body.random_seed:
        fields.pop("seed", None)
    if body.dry_sequence_breakers is not None:
        fields["dry_sequence_breakers"] = tuple(body.dry_sequence_breakers)
    if body.samplers is not None:
        fields["samplers"], unknown = steps_of(body.samplers)
        for name in unknown:
            context.warn(f"samplers: {name[:64]!r} has no effect: there is no such sampler")
    return fields


def requested_logprobs(body: LogprobFields) -> int | None:
    """How many of the most likely tokens to report for each position; None: no log-probabilities."""
    if body.top_logprobs is not None and not body.logprobs:
        raise wrong("top_logprobs", "needs logprobs: true")
    return (body.top_logprobs or 0) if body.logprobs else None


def _prompt_logprobs(body: GenerationFields, context: RequestContext) -> int | None:
    if body.stream and body.prompt_logprobs:
        raise wrong("prompt_logprobs", "are in the whole response only, not with stream")
    if body.stream and body.prompt_logprobs == 0:  # vLLM takes it, and shows nothing
        context.warn("prompt_logprobs has no effect with stream")
        return None
    return body.prompt_logprobs


class Fields:
    """One JSON object of a request. `path` names it in errors: "input[3].content[0]"."""

    def __init__(self, value: Any, path: str, context: RequestContext) -> None:
        if not isinstance(value, dict):
            raise wrong(path, "must be an object")
        self.value: dict[str, Any] = value
        self.path, self.context = path, context

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def get(self, name: str) -> Any:
        """A value; null is the same as absent."""
        return self.value.get(name)

    def text(self, name: str) -> str:
        """A required string."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, str):
            raise wrong(self.at(name), "must be a string")
        return value

    def text_or(self, name: str, default: str) -> str:
        return default if self.get(name) is None else self.text(name)

    def one_of(self, name: str, known: Sequence[str], default: str | None = None) -> str:
        """A string that must be one of a few."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise missing(self.at(name))
            return default
        if not isinstance(value, str) or value not in known:
            instead = f", not {value[:64]!r}" if isinstance(value, str) else ""
            raise wrong(self.at(name), f"must be one of {', '.join(known)}{instead}")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.at(name), "must be true or false")
        return bool(value)

    def count(self, name: str, least: int) -> int:
        """A required integer."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if type(value) is not int or not least <= value < 2**31:
            raise wrong(self.at(name), f"must be an integer from {least} to {2**31 - 1}")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """A required object."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, dict):
            raise wrong(self.at(name), "must be an object")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of at least one string."""
        value = self.get(name)
        if value is None:
            raise missing(self.at(name))
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise wrong(self.at(name), "must be a list of strings, at least one")
        return value

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects; may be absent."""
        return objects(self.get(name), self.at(name), self.context)

    def only(self, known: frozenset[str], idle: frozenset[str] = _NONE) -> None:
        """Warn about fields other than `known`, except `idle` ones, which never have an effect."""
        for name, value in self.value.items():
            if name not in known and name not in idle and value is not None:
                self.context.warn(f"{self.at(name[:64])} has no effect")


def objects(value: Any, path: str, context: RequestContext) -> Iterator[Fields]:
    """The objects of a list. None: the list is absent."""
    if value is None:
        return
    if not isinstance(value, list):
        raise wrong(path, "must be a list")
    for i, item in enumerate(value):
        yield Fields(item, f"{path}[{i}]", context)


def json_text(value: Any, path: str) -> str:
    """The value as JSON, if it is not nested too deeply."""
    try:
        return exact_json.write(value, ensure_ascii=False)
    except (RecursionError, ValueError):
        raise wrong(path, "is nested too deeply, or has numbers that are too long") from None


def parse_tools(tools: Iterable[ToolField] | None, context: RequestContext) -> list[Tool]:
    """The tools in the field `tools`. Raises ApiError (400)."""
    return [_parse_tool(tool, f"tools[{i}]", context) for i, tool in enumerate(tools or ())]


def _parse_tool(tool: ToolField, where: str, context: RequestContext) -> Tool:
    if tool.type != "function":
        kind = tool.type[:64]
        message = f"tools of type '{kind}' are not run by this server; only functions are supported"
        raise unsupported(f"{where}.type", message)
    if tool.function is None:
        raise missing(f"{where}.function")
    warn_of_unknown(tool.model_extra, where, context)
    function, where = tool.function, f"{where}.function"
    warn_of_unknown(function.model_extra, where, context)
    return Tool(function.name, function.description, function.parameters, function.strict, where)


def parse_calls(calls: Iterable[ToolCall], where: str, context: RequestContext) -> list[dict[str, Any]]:
    """The `tool_calls` of the message `where`, with arguments as JSON text. Raises ApiError (400)."""
    parsed = []
    for i, call in enumerate(calls):
        at, function = f"{where}.tool_calls[{i}]", call.function
        warn_of_unknown(call.model_extra, at, context, silent=("index",))
        warn_of_unknown(function.model_extra, f"{at}.function", context, silent=("index",))
        arguments = function.arguments
        if not isinstance(arguments, str):
            arguments = json_text(arguments or {}, f"{at}.function.arguments")
        called = {"name": function.name, "arguments": arguments}
        parsed.append({"id": call.id or "", "type": "function", "function": called})
    return parsed


def choice_by_mode(mode: Any) -> ToolChoice:
    """The tool choice for a `tool_choice` that is not an object. Raises ApiError (400)."""
    if mode not in ("none", "auto", "required"):
        raise wrong("tool_choice", "must be 'none', 'auto', 'required' or an object")
    return ToolChoice(mode)


def json_schema(schema: Any, param: str, *, lenient: bool = False) -> Constraint:
    """The constraint of a schema, strict unless the schema says otherwise. lenient: report what cannot be
    enforced instead of refusing it.
    """
    if not isinstance(schema, dict | bool):
        raise wrong(param, "must be a JSON schema: an object")
    if lenient and isinstance(schema, dict):
        options = schema.get("x-guidance")
        schema = {**schema, "x-guidance": {"lenient": True, **(options if isinstance(options, dict) else {})}}
    return Constraint("json_schema", dumps_field(closed(schema), param))


def dumps_field(value: Any, param: str) -> str:
    try:
        return exact_json.dumps(value)
    except ConfigError:
        raise wrong(param, "is nested too deeply, or has numbers that are too long") from None


def no_media(path: str, kind: str) -> ApiError:
    """Refuse content parts other than text, with llama-server's message."""
    known = next((name for name in ("image", "audio", "video") if name in kind), None)
    name = f"{known} input" if known else f"a part of type {kind[:64]!r}"
    return unsupported(path, f"{name} is not supported by this model; send text")
