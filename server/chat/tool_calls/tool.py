"""The tools of a request, and their validation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from server.errors import wrong

MAX_TOOLS = 256
MAX_TOOLS_CHARS = 1 << 19  # of all tools as JSON
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
# Parameters that hold nothing else describe no argument: clients write functions without parameters so.
_ANNOTATIONS = {"type", "title", "description", "$schema"}
_NOTHING: dict[str, Any] = {"properties": {}, "required": [], "additionalProperties": False}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True)
class Tool:
    """A function that the model may call, as a client describes it; `check_tools` validates it.

    parameters: JSON schema of the arguments, an object; None: it has none. param: the request's field.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    param: str = field(default="", compare=False)

    def wire(self) -> dict[str, Any]:
        """The tool in OpenAI's form, which templates expect. Most of them need a description."""
        function = {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or NO_ARGUMENTS,
        }
        return {"type": "function", "function": function}

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments. A schema that lists none, such as `{"type": "object"}`, allows none.
        """
        described = {key: value for key, value in (self.parameters or {}).items() if key not in _ANNOTATIONS}
        silent = all(key in _NOTHING and value == _NOTHING[key] for key, value in described.items())
        return NO_ARGUMENTS if silent else self.parameters or NO_ARGUMENTS


@dataclass(frozen=True)
class ToolChoice:
    """Whether tools are called: never, when the model decides so, or always.

    names: only these may be called; None: any. A named tool is `ToolChoice("required", ("name",))`.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None


def check_tools(tools: Sequence[Tool], choice: ToolChoice, schema_field: str = "parameters") -> None:
    """Raises ApiError (400) if a tool, the tools as a whole, or the choice is invalid.

    schema_field: the API's name for `parameters`.
    """
    if len(tools) > MAX_TOOLS:
        raise wrong("tools", f"at most {MAX_TOOLS} tools are allowed, not {len(tools)}")
    for tool in tools:
        _check_tool(tool, schema_field)
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise wrong("tools", f"two tools are named '{twice}'")
    try:
        size = len(json.dumps([tool.wire() for tool in tools]))
    except RecursionError:
        raise wrong("tools", "is nested too deeply") from None
    if size > MAX_TOOLS_CHARS:
        message = f"all tools together may have at most {MAX_TOOLS_CHARS} characters of JSON, not {size}"
        raise wrong("tools", message)
    for name in choice.names or ():
        if name not in names:
            raise wrong("tool_choice", f"there is no tool named '{name[:128]}'")
    if choice.mode == "required" and not tools:
        raise wrong("tool_choice", "there are no tools to call")


def _check_tool(tool: Tool, schema_field: str) -> None:
    name, description, strict, parameters = tool.name, tool.description, tool.strict, tool.parameters
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{tool.param}.name", "must be 1 to 128 letters, digits, '_', '-' or '.'")
    if description is not None and not isinstance(description, str):
        raise wrong(f"{tool.param}.description", "must be a string")
    if strict is not None and not isinstance(strict, bool):
        raise wrong(f"{tool.param}.strict", "must be true or false")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise wrong(f"{tool.param}.{schema_field}", "must be a JSON schema: an object")
    if parameters.get("type", "object") not in ("object", ["object"]):
        message = 'must have the type "object", since arguments have names'
        raise wrong(f"{tool.param}.{schema_field}", message)
