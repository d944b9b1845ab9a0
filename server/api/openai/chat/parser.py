"""Parses OpenAI's chat requests into a `ChatInput` and `GenerationOptions`."""

from __future__ import annotations

from typing import Any

from server.api.common.requests.output_fields import OUTPUT_FIELDS
from server.api.common.requests.parser import (
    check_fields,
    choice_by_mode,
    choice_options,
    parse_calls,
    parse_tools,
    requested_logprobs,
    used_name,
    warn_of_unknown,
)
from server.api.common.requests.structured_output import requested_constraint
from server.api.openai.chat.schema import ChatFields, ChatRequest, Message
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint, ToolChoice
from server.errors import wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext

_BUDGETS = ("reasoning_budget_tokens", "thinking_budget_tokens", "reasoning_budget")


def parse_options(body: ChatRequest, context: RequestContext) -> GenerationOptions:
    """The fields that do not become part of the prompt. Warns about unknown ones."""
    check_fields(body, context)
    logprobs = requested_logprobs(body)
    limits = [n for n in (body.max_completion_tokens, body.max_tokens) if n is not None]
    if len(set(limits)) > 1:
        context.warn("max_tokens has no effect: max_completion_tokens is set")
    if logprobs is None:
        logprobs = body.n_probs or None
    return choice_options(
        body, context, id_prefix="chatcmpl-", max_tokens=limits[0] if limits else None, logprobs=logprobs
    )


def parse_chat(body: ChatFields, context: RequestContext) -> ChatInput:
    """The conversation, and the constraint on the content."""
    return ChatInput(
        [_message(message, f"messages[{i}]", context) for i, message in enumerate(body.messages)],
        tools=parse_tools(body.tools, context) if body.tools else (),
        tool_choice=_tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=ReasoningOptions(body.reasoning_format, effort=body.reasoning_effort, budget=_budget(body)),
        answer=_answer(body, context),
        extra=body.chat_template_kwargs or {},
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )


def _answer(body: ChatFields, context: RequestContext) -> RequestedConstraint | None:
    if not isinstance(body, ChatRequest) or body.model_fields_set.isdisjoint(OUTPUT_FIELDS):
        return None
    return requested_constraint(body, context)


def _message(message: Message, where: str, context: RequestContext) -> dict[str, Any]:
    extra = dict(message.model_extra or {})
    content: Any = message.content
    if message.role == "assistant" and content is None and isinstance(extra.get("refusal"), str):
        content = extra.pop("refusal")
    if extra:
        warn_of_unknown(extra, where, context, refused=("function_call", "audio"))
    parsed: dict[str, Any] = {"role": message.role, "content": content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            parsed[name] = value
    if message.tool_calls:
        parsed["tool_calls"] = parse_calls(message.tool_calls, where, context)
    return parsed


def _tool_choice(value: Any) -> ToolChoice:
    if value is None:
        return ToolChoice()
    if not isinstance(value, dict):
        return choice_by_mode(value)
    kind = value.get("type")
    if kind == "function":
        return ToolChoice("required", (_function_name(value, "tool_choice"),))
    if kind == "allowed_tools":
        allowed = value.get("allowed_tools")
        if not isinstance(allowed, dict):
            raise wrong("tool_choice.allowed_tools", "must be an object")
        mode, tools = allowed.get("mode"), allowed.get("tools")
        if mode not in (None, "auto", "required"):
            raise wrong("tool_choice.allowed_tools.mode", "must be 'auto' or 'required'")
        if not isinstance(tools, list) or not tools:
            raise wrong("tool_choice.allowed_tools.tools", "must be a list of tools")
        where = "tool_choice.allowed_tools.tools"
        names = tuple(_function_name(tool, f"{where}[{i}]") for i, tool in enumerate(tools))
        return ToolChoice("required" if mode == "required" else "auto", names)
    raise wrong("tool_choice.type", "must be 'function' or 'allowed_tools'")


def _function_name(value: Any, where: str) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise wrong(f"{where}.function.name", "must be the name of a tool")
    return name


def _budget(body: ChatFields) -> int | None:
    if all(getattr(body, name) is None for name in _BUDGETS):
        return None
    name = used_name(body, _BUDGETS)
    return None if name is None else getattr(body, name)
