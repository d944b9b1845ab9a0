"""Functions that a model may call, as described in OpenAI's chat API and Ollama's API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.api.common.schema import Schema, field

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL_EXAMPLE = {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}}
_FUNCTION = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
CALL_EXAMPLE = {"id": "call_1", "type": "function", "function": _FUNCTION}


class FunctionTool(Schema):
    name: str = Field(description="up to 128 letters, digits, '_', '-', '.'", examples=["get_weather"])
    description: str | None = field(
        "tells the model what the function does, and when to call it", "The weather now"
    )
    parameters: dict[str, Any] | None = field("JSON schema of the arguments", _SCHEMA)
    strict: bool | None = field("arguments always match the schema, if it can be enforced", True)


class ToolField(Schema):
    type: str = Field("function", description="the only type", examples=["function"])
    function: FunctionTool | None = field("the tool", TOOL_EXAMPLE["function"])


class CalledFunction(Schema):
    name: str = Field(max_length=256, description="the tool's name", examples=["get_weather"])
    arguments: str | dict[str, Any] | None = field(
        "arguments as JSON text or as an object", '{"city": "Paris"}'
    )


class ToolCall(Schema):
    id: str | None = field("the id to which the result's `tool_call_id` refers", "call_1", max_length=256)
    type: Literal["function"] = Field("function", description="the only type", examples=["function"])
    function: CalledFunction = Field(description="the function that was called", examples=[_FUNCTION])
