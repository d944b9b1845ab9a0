"""A chat request in the neutral form that the parsers of all APIs produce: conversation, tools, reasoning."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from engine.types import Constraint
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
        """JSON schema of the arguments. One that lists none, such as `{"type": "object"}`, allows none."""
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


@dataclass(frozen=True)
class ReasoningOptions:
    """How the model reasons before it answers. None: the default of the server or of the template.

    format: "none" leaves reasoning and its markers in the content; "auto" and "deepseek" split it off.
    effort: none | minimal | low | medium | high | xhigh | max. budget: maximum number of reasoning tokens;
    -1: no limit. enabled: whether the model reasons at all (`enable_thinking` of templates).
    """

    format: Literal["none", "auto", "deepseek"] | None = None
    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None


class RequestedConstraint(NamedTuple):
    """A constraint on the output, and the request field that asks for it."""

    constraint: Constraint
    param: str


@dataclass
class ChatInput:
    """A conversation in OpenAI's form, and how to continue it.

    messages: `role` (system, developer, user, assistant, tool), `content` (text, a list of parts
    `{"type": "text", "text"}`, or None), `name`; of an assistant also `reasoning_content` and
    `tool_calls: [{"id", "type": "function", "function": {"name", "arguments": JSON text}}]`; of a tool
    `tool_call_id`. Roles and types have been validated.

    add_generation_prompt: None: unless the answer continues the last message. continue_final_message: True,
    "content", "reasoning_content" or False; None: yes if the last message is the assistant's and
    add_generation_prompt is None.
    """

    messages: list[dict[str, Any]]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool | None = None  # None: if the model's template shows several calls in one turn
    reasoning: ReasoningOptions = ReasoningOptions()
    answer: RequestedConstraint | None = None  # what the content must match, where no tool is called
    extra: dict[str, Any] = field(default_factory=dict)  # chat_template_kwargs
    add_generation_prompt: bool | None = None
    continue_final_message: bool | str | None = None
    param: str = "messages"  # the API's field that errors about the messages name
    numbered_messages: bool = True  # the client knows the messages by their numbers here
    before: Sequence[int] = ()  # tokens of an earlier text, which the prompt follows
    schema_field: str = "parameters"  # the API's name of a tool's schema

    @property
    def continues(self) -> bool:
        """Whether the answer continues the last message."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return False
        if self.continue_final_message is None:
            return self.add_generation_prompt is None
        return bool(self.continue_final_message)

    def check_turns(self) -> None:
        """Raises ApiError (400) if fields contradict each other or the messages."""
        name = "continue_final_message"
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise wrong(name, "contradicts add_generation_prompt: true")
            if not self.continues:
                raise wrong(name, "the last message is not the assistant's")
        if not self.continues:
            return
        last = f"{self.param}[{len(self.messages) - 1}]"
        if self.messages[-1].get("tool_calls"):
            raise wrong(f"{last}.tool_calls", "the last message calls tools: their results must follow it")
        if len(self.messages) > 1 and self.messages[-2]["role"] == "assistant":
            raise wrong(last, "two messages of the assistant cannot be continued as one")


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
