"""Functions that a model may call, as OpenAI's chat and Ollama's API describe them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from server.api.common.requests.parser import json_text, warn_of_unknown
from server.api.common.schema import Schema, field
from server.chat.tool_calls.tool import Tool, ToolChoice, make_tool
from server.errors import missing, unsupported, wrong
from server.generation.request_context import RequestContext

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL_EXAMPLE = {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}}
_FUNCTION = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
CALL_EXAMPLE = {"id": "call_1", "type": "function", "function": _FUNCTION}


class FunctionTool(Schema):
    name: str = Field(description="up to 128 letters, digits, '_', '-', '.'", examples=["get_weather"])
    description: str | None = field("for the model: what it does, and when to call it", "The weather now")
    parameters: dict[str, Any] | None = field("JSON schema of the arguments", _SCHEMA)
    strict: bool | None = field("arguments match the schema in any case, where it can be enforced", True)


class ToolField(Schema):
    type: str = Field("function", description="the only one there is", examples=["function"])
    function: FunctionTool | None = field("the tool", TOOL_EXAMPLE["function"])


class CalledFunction(Schema):
    name: str = Field(max_length=256, description="the tool's name", examples=["get_weather"])
    arguments: str | dict[str, Any] | None = field("as JSON text, or as an object", '{"city": "Paris"}')


class ToolCall(Schema):
    id: str | None = field("what the result's `tool_call_id` says", "call_1", max_length=256)
    type: Literal["function"] = Field("function", description="the only one there is", examples=["function"])
    function: CalledFunction = Field(description="what was called", examples=[_FUNCTION])


def parse_tools(tools: Iterable[ToolField] | None, context: RequestContext) -> list[Tool]:
    """Those of the field `tools`. Raises ApiError (400)."""
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
    return make_tool(function.name, function.description, function.parameters, function.strict, where)


def parse_calls(calls: Iterable[ToolCall], where: str, context: RequestContext) -> list[dict[str, Any]]:
    """`tool_calls` of the message `where`, with arguments as JSON text. Raises ApiError (400)."""
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
    """Of a `tool_choice` that is no object. Raises ApiError (400)."""
    if mode not in ("none", "auto", "required"):
        raise wrong("tool_choice", "must be 'none', 'auto', 'required' or an object")
    return ToolChoice(mode)
