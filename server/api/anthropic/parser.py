"""From a request for a message to what a chat is made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from server.api.anthropic.content import conversation
from server.api.anthropic.schema import MessageInput, MessageRequest
from server.api.common.generation_fields import GenerationFields
from server.api.common.json_reader import (
    Fields,
    generation_fields,
    objects,
    refuse_fields,
    unsupported,
    warn,
    wrong,
)
from server.chat.request import RequestedConstraint
from server.chat.tool_calls import Tool, ToolChoice, make_tool
from server.errors import ApiError
from server.input.chat import ChatInput, ReasoningOptions
from server.input.constraints import named_schema

# Fields of the official API that would change the answer.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "container": (),
    "context_management": ({},),
    "mcp_servers": ([],),
    "output_format": (),
}
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict"})
_IDLE = frozenset({"cache_control"})


class Choice(NamedTuple):
    """Which tools are called, and whether several at once."""

    tools: ToolChoice = ToolChoice()
    parallel: bool | None = None


def chat_of(body: MessageInput, warnings: list[str]) -> ChatInput:
    """Everything in it is checked, but for what depends on the model."""
    refuse_fields(body, _REFUSED)
    choice = _tool_choice(body, warnings)
    return ChatInput(
        conversation(body, warnings),
        tools=_tools(body, warnings),
        tool_choice=choice.tools,
        parallel_tool_calls=choice.parallel,
        reasoning=_reasoning(body, warnings),
        answer=_answer(body, warnings),
        extra=body.chat_template_kwargs or {},
    )


def _tools(body: MessageInput, warnings: list[str]) -> list[Tool]:
    found = []
    for tool in objects(body.tools, "tools", warnings):
        kind = tool.text_or("type", "custom")
        if kind != "custom":
            message = f"tools of type {kind[:64]!r} are not run by this server; only custom ones can be given"
            raise unsupported(tool.at("type"), message)
        if tool.get("cache_control") is not None:
            warn(warnings, "cache_control has no effect: every prompt is cached")
        tool.only(_TOOL, _IDLE)
        schema = tool.object("input_schema")
        name, description, strict = (tool.get(key) for key in ("name", "description", "strict"))
        try:
            found.append(make_tool(name, description, schema, strict, tool.path))
        except ApiError as error:
            raise _renamed(error, "parameters", "input_schema") from None
    return found


def _renamed(error: ApiError, old: str, new: str) -> ApiError:
    """The same error with this API's name of the field."""
    if error.param is None or not error.param.endswith(f".{old}"):
        return error
    param = error.param.removesuffix(old) + new
    return ApiError(400, error.message.replace(error.param, param, 1), param=param, code=error.code)


def _tool_choice(body: MessageInput, warnings: list[str]) -> Choice:
    if body.tool_choice is None:
        return Choice()
    fields = Fields(body.tool_choice, "tool_choice", warnings)
    kind = fields.one_of("type", ("auto", "any", "tool", "none"))
    parallel = False if fields.flag("disable_parallel_tool_use") else None
    known = frozenset({"type", "disable_parallel_tool_use"})
    if kind == "tool":
        fields.only(known | {"name"})
        return Choice(ToolChoice("required", (fields.text("name"),)), parallel)
    fields.only(known)
    if kind == "any":
        return Choice(ToolChoice("required"), parallel)
    return Choice(ToolChoice("none" if kind == "none" else "auto"), parallel)


def _reasoning(body: MessageInput, warnings: list[str]) -> ReasoningOptions:
    effort = None if body.output_config is None else body.output_config.effort
    if body.thinking is None:
        return ReasoningOptions(effort=effort)
    fields = Fields(body.thinking, "thinking", warnings)
    kind = fields.one_of("type", ("enabled", "disabled", "adaptive"))
    fields.one_of("display", ("summarized", "omitted"), "summarized")
    fields.only(frozenset({"type", "display", "budget_tokens"}))
    if kind == "disabled":
        return ReasoningOptions(effort=effort, enabled=False)
    if kind == "adaptive":
        return ReasoningOptions(effort=effort, enabled=True)
    return ReasoningOptions(effort=effort, enabled=True, budget=fields.count("budget_tokens", 1))


def hides_thinking(body: MessageRequest) -> bool:
    """Whether the client wants to see that there was thinking, but not which."""
    return (body.thinking or {}).get("display") == "omitted"


def _answer(body: MessageInput, warnings: list[str]) -> RequestedConstraint | None:
    config = body.output_config
    if config is None:
        return None
    for name, value in (config.model_extra or {}).items():
        if value is not None:
            warn(warnings, f"output_config.{name[:64]} has no effect")
    if config.format is None:
        return None
    fields = Fields(config.format, "output_config.format", warnings)
    if fields.text("type") != "json_schema":
        raise wrong(fields.at("type"), "must be json_schema")
    fields.object("schema")
    named = {name: value for name, value in config.format.items() if name != "type"}
    return named_schema(named, fields.path, warnings)


def generation_of(body: MessageRequest) -> GenerationFields:
    """The fields that `server.input.processor` reads."""
    stops = [*(body.stop_sequences or ()), *(body.stop or ())]
    return generation_fields(body, stop=stops)
