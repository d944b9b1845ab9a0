"""From the fields of OpenAI's chat requests to a ChatInput."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from server.api.openai.chat.schema import ChatFields, Message, ToolField
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint
from server.chat.tool_calls.tool import Tool, ToolChoice, make_tool
from server.errors import bad_request

MAX_WARNINGS = 32
_BUDGETS = ("reasoning_budget_tokens", "thinking_budget_tokens", "reasoning_budget")


def chat_input(body: ChatFields, warnings: list[str], answer: RequestedConstraint | None = None) -> ChatInput:
    """What a request asks for. Adds to `warnings`. `answer`: what the content must match."""
    return ChatInput(
        [_message(message, f"messages[{i}]", warnings) for i, message in enumerate(body.messages)],
        tools=[_tool(tool, f"tools[{i}]", warnings) for i, tool in enumerate(body.tools or ())],
        tool_choice=_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=ReasoningOptions(body.reasoning_format, effort=body.reasoning_effort, budget=_budget(body)),
        answer=answer,
        extra=body.chat_template_kwargs or {},
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )


def _message(message: Message, where: str, warnings: list[str]) -> dict[str, Any]:
    extra = dict(message.model_extra or {})
    content: Any = message.content
    if message.role == "assistant" and content is None and isinstance(extra.get("refusal"), str):
        content = extra.pop("refusal")
    _unknown(extra, where, warnings, refused=("function_call", "audio"))
    found: dict[str, Any] = {"role": message.role, "content": content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            found[name] = value
    if message.tool_calls:
        found["tool_calls"] = []
        for j, call in enumerate(message.tool_calls):
            _unknown(call.model_extra, f"{where}.tool_calls[{j}]", warnings, silent=("index",))
            _unknown(call.function.model_extra, f"{where}.tool_calls[{j}].function", warnings)
            arguments = call.function.arguments
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            function = {"name": call.function.name, "arguments": arguments}
            found["tool_calls"].append({"id": call.id or "", "type": "function", "function": function})
    return found


def _tool(tool: ToolField, where: str, warnings: list[str]) -> Tool:
    if tool.type != "function":
        param = f"{where}.type"
        message = f"tools of type '{tool.type[:64]}' are not run by this server; only functions can be given"
        raise bad_request(f"{param}: {message}", param, "unsupported_value")
    if tool.function is None:
        raise bad_request(f"{where}.function: is required", f"{where}.function", "missing_field")
    _unknown(tool.model_extra, where, warnings)
    function, where = tool.function, f"{where}.function"
    _unknown(function.model_extra, where, warnings)
    return make_tool(function.name, function.description, function.parameters, function.strict, where)


def _choice(asked: Any) -> ToolChoice:
    if asked is None or asked == "auto":
        return ToolChoice()
    if asked == "none":
        return ToolChoice("none")
    if asked == "required":
        return ToolChoice("required")
    if not isinstance(asked, dict):
        _wrong("tool_choice", "must be 'none', 'auto', 'required' or an object")
    kind = asked.get("type")
    if kind == "function":
        return ToolChoice("required", (_function_name(asked, "tool_choice"),))
    if kind == "allowed_tools":
        allowed = asked.get("allowed_tools")
        if not isinstance(allowed, dict):
            _wrong("tool_choice.allowed_tools", "must be an object")
        mode, tools = allowed.get("mode", "auto"), allowed.get("tools")
        if mode not in ("auto", "required"):
            _wrong("tool_choice.allowed_tools.mode", "must be 'auto' or 'required'")
        if not isinstance(tools, list) or not tools:
            _wrong("tool_choice.allowed_tools.tools", "must be a list of tools")
        where = "tool_choice.allowed_tools.tools"
        names = tuple(_function_name(tool, f"{where}[{i}]") for i, tool in enumerate(tools))
        return ToolChoice("required" if mode == "required" else "auto", names)
    _wrong("tool_choice.type", "must be 'function' or 'allowed_tools'")


def _function_name(value: Any, where: str) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        _wrong(f"{where}.function.name", "must be the name of a tool")
    return name


def _budget(body: ChatFields) -> int | None:
    given = {name: value for name in _BUDGETS if (value := getattr(body, name)) is not None}
    if len(set(given.values())) > 1:
        first, second, *_ = given
        _wrong(second, f"differs from {first}, which is the same")
    return next(iter(given.values()), None)


def _unknown(
    extra: Mapping[str, Any] | None,
    where: str,
    warnings: list[str],
    refused: tuple[str, ...] = (),
    silent: tuple[str, ...] = (),
) -> None:
    for name, value in (extra or {}).items():
        if value in (None, [], "") or name in silent:
            continue
        param = f"{where}.{name[:64]}"
        if name in refused:
            instead = "; send tool_calls" if name == "function_call" else ""
            raise bad_request(f"{param}: is not supported{instead}", param, "unsupported_value")
        if len(warnings) < MAX_WARNINGS:
            warnings.append(f"{param} has no effect")


def _wrong(param: str, message: str) -> NoReturn:
    raise bad_request(f"{param}: {message}", param, "invalid_value")
