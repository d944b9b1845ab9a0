"""Functions that a model may call, as OpenAI's chat and Ollama's API describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from server.api.common.requests.json_reader import missing, unsupported, wrong
from server.api.common.schema import Schema, field
from server.chat.tool_calls.tool import Tool, ToolChoice, make_tool
from server.generation.request_context import RequestContext

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL_EXAMPLE = {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}}


class FunctionTool(Schema):
    name: str = Field(description="up to 128 letters, digits, '_', '-', '.'", examples=["get_weather"])
    description: str | None = field("for the model: what it does, and when to call it", "The weather now")
    parameters: dict[str, Any] | None = field("JSON schema of the arguments", _SCHEMA)
    strict: bool | None = field("arguments match the schema in any case, where it can be enforced", True)


class ToolField(Schema):
    type: str = Field(description='"function"', examples=["function"])
    function: FunctionTool | None = field("the tool", TOOL_EXAMPLE["function"])


def parse_tool(tool: ToolField, where: str, context: RequestContext) -> Tool:
    """where: its place in the request, "tools[0]". Raises ApiError (400)."""
    if tool.type != "function":
        kind = tool.type[:64]
        message = f"tools of type '{kind}' are not run by this server; only functions are supported"
        raise unsupported(f"{where}.type", message)
    if tool.function is None:
        raise missing(f"{where}.function")
    warn_of_unknown(tool.model_extra, where, context)
    function, where = tool.function, f"{where}.function"
    warn_of_unknown(function.model_extra, where, context)
    return make_tool(function.name, function.description, function.parameters, function.strict, where)


def choice_by_mode(mode: Any) -> ToolChoice:
    """Of a `tool_choice` that is no object. Raises ApiError (400)."""
    if mode not in ("none", "auto", "required"):
        raise wrong("tool_choice", "must be 'none', 'auto', 'required' or an object")
    return ToolChoice(mode)


def warn_of_unknown(
    extra: Mapping[str, Any] | None,
    where: str,
    context: RequestContext,
    refused: tuple[str, ...] = (),
    silent: tuple[str, ...] = (),
) -> None:
    """Warn of the fields that an object below the body has beyond its schema, or refuse them."""
    for name, value in (extra or {}).items():
        if value in (None, [], "") or name in silent:
            continue
        param = f"{where}.{name[:64]}"
        if name in refused:
            instead = "; send tool_calls" if name == "function_call" else ""
            raise unsupported(param, f"is not supported{instead}")
        context.warn(f"{param} has no effect")
