"""Parses a Messages request into a `ChatInput` and `GenerationOptions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from server.api.anthropic.schema import MessageInput, MessageRequest
from server.api.common.requests.parser import (
    REFUSED,
    Fields,
    check_fields,
    generation_options,
    json_text,
    no_media,
    objects,
    warn_of_unknown,
)
from server.api.common.requests.structured_output import named_schema
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint, Tool, ToolChoice
from server.errors import ApiError, unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext

Message = dict[str, Any]
_ROLES = ("user", "assistant", "system")
# Fields of the official API that would change the answer.
_REFUSED: dict[str, tuple[Any, ...]] = {
    **REFUSED,
    "container": (),
    "mcp_servers": ([],),
}
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict"})
_IDLE = frozenset({"cache_control"})


class _CallOptions(NamedTuple):
    """Which tools may be called, and whether several at once."""

    choice: ToolChoice = ToolChoice()
    parallel: bool | None = None


def check_body(body: MessageInput, context: RequestContext) -> None:
    """Warn about unknown fields, and refuse what is not supported."""
    check_fields(body, context, _REFUSED)
    if (body.model_extra or {}).get("thread") is not None:
        raise _no_threads()


def parse_chat(body: MessageInput, context: RequestContext) -> ChatInput:
    """The conversation, validated except for what depends on the model."""
    calls = _tool_choice(body, context)
    return ChatInput(
        _conversation(body, context),
        tools=_tools(body, context),
        tool_choice=calls.choice,
        parallel_tool_calls=calls.parallel,
        reasoning=_reasoning(body, context),
        answer=_answer(body, context),
        extra=body.chat_template_kwargs or {},
        numbered_messages=False,
        schema_field="input_schema",
    )


def _no_threads() -> ApiError:
    """Refuse `thread`. With these `details`, the official clients send the whole conversation instead."""
    error = unsupported("thread")
    error.details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return error


def _tools(body: MessageInput, context: RequestContext) -> list[Tool]:
    tools: list[Tool] = []
    if body.tools is None:
        return tools
    for tool in objects(body.tools, "tools", context):
        kind = tool.text_or("type", "custom")
        if kind != "custom":
            message = (
                f"tools of type {kind[:64]!r} are not run by this server; only custom ones are supported"
            )
            raise unsupported(tool.at("type"), message)
        if tool.get("cache_control") is not None:
            context.warn("cache_control has no effect: every prompt is cached")
        tool.only(_TOOL, _IDLE)
        schema = tool.object("input_schema")
        name, description, strict = (tool.get(key) for key in ("name", "description", "strict"))
        tools.append(Tool(name, description, schema, strict, tool.path))
    return tools


def _tool_choice(body: MessageInput, context: RequestContext) -> _CallOptions:
    if body.tool_choice is None:
        return _CallOptions()
    fields = Fields(body.tool_choice, "tool_choice", context)
    kind = fields.one_of("type", ("auto", "any", "tool", "none"))
    parallel = False if fields.flag("disable_parallel_tool_use") else None
    known = frozenset({"type", "disable_parallel_tool_use"})
    if kind == "tool":
        fields.only(known | {"name"})
        return _CallOptions(ToolChoice("required", (fields.text("name"),)), parallel)
    fields.only(known)
    if kind == "any":
        return _CallOptions(ToolChoice("required"), parallel)
    return _CallOptions(ToolChoice("none" if kind == "none" else "auto"), parallel)


def _reasoning(body: MessageInput, context: RequestContext) -> ReasoningOptions:
    effort = None if body.output_config is None else body.output_config.effort
    if body.thinking is None:
        return ReasoningOptions(effort=effort)
    fields = Fields(body.thinking, "thinking", context)
    kind = fields.one_of("type", ("enabled", "disabled", "adaptive"))
    fields.one_of("display", ("summarized", "omitted"), "summarized")
    fields.only(frozenset({"type", "display", "budget_tokens"}))
    if kind == "disabled":
        return ReasoningOptions(effort=effort, enabled=False)
    if kind == "adaptive":
        return ReasoningOptions(effort=effort, enabled=True)
    return ReasoningOptions(effort=effort, enabled=True, budget=fields.count("budget_tokens", 1))


def hides_thinking(body: MessageRequest) -> bool:
    """Whether the client wants thinking blocks without their text."""
    return (body.thinking or {}).get("display") == "omitted"


def _answer(body: MessageInput, context: RequestContext) -> RequestedConstraint | None:
    config, format, path = body.output_config, body.output_format, "output_format"
    if config is not None:
        warn_of_unknown(config.model_extra, "output_config", context)
        if config.format is not None:
            if format is not None and format != config.format:
                raise wrong("output_format", "differs from output_config.format, its other name")
            format, path = config.format, "output_config.format"
    if format is None:
        return None
    fields = Fields(format, path, context)
    if fields.text("type") != "json_schema":
        raise wrong(fields.at("type"), "must be json_schema")
    fields.object("schema")
    return named_schema(fields, frozenset({"type"}))


def parse_options(body: MessageRequest, context: RequestContext) -> GenerationOptions:
    """The fields that do not become part of the prompt."""
    stops = [*(body.stop_sequences or ()), *(body.stop or ())]
    return generation_options(
        body,
        context,
        id_prefix="msg_",
        stream=body.stream,
        reports=False,
        max_tokens=body.max_tokens,
        stop=[stop for stop in stops if stop],
    )


def _conversation(body: MessageInput, context: RequestContext) -> list[Message]:
    """The validated messages, with consecutive turns of one role merged."""
    messages: list[Message] = []
    if body.system is not None:
        texts = _system(body.system, "system", context)
        messages.append({"role": "system", "content": _content(texts)})
    calls: set[str] = set()
    turn: list[Fields] = []
    role = ""
    for message in objects(body.messages, "messages", context):
        kind = message.one_of("role", _ROLES)
        _only(message, frozenset({"role", "content"}))
        if kind != role or kind == "system":
            messages += _turn(role, turn, calls)
            role, turn = kind, []
        if kind == "system":
            texts = _system(message.get("content"), message.at("content"), context)
            messages.append({"role": "system", "content": _content(texts)})
        else:
            turn += _blocks(message, "content", required=True)
    messages += _turn(role, turn, calls)
    if messages and messages[-1].get("tool_calls"):
        raise wrong("messages", "the last one uses a tool; the tool's result must follow")
    return messages


def _blocks(fields: Fields, name: str, required: bool = False) -> list[Fields]:
    value = fields.get(name)
    if isinstance(value, str):
        return [Fields({"type": "text", "text": value}, fields.at(name), fields.context)]
    if value is None and required:
        fields.text(name)  # raises: it is missing
    return list(fields.objects(name))


def _turn(role: str, blocks: list[Fields], calls: set[str]) -> Iterator[Message]:
    if role == "user":
        yield from _user(blocks, calls)
    elif role == "assistant":
        yield _assistant(blocks, calls)


def _user(blocks: list[Fields], calls: set[str]) -> Iterator[Message]:
    """A user turn. Tool results come before the text, since templates expect them right after the calls."""
    texts, results = [], False
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_result":
            results = True
            yield _result(block, calls)
        else:
            texts.append(_text(block, kind))
    if texts or not results:
        yield {"role": "user", "content": _content(texts)}


def _result(block: Fields, calls: set[str]) -> Message:
    _only(block, frozenset({"type", "tool_use_id", "content", "is_error"}))
    id = block.text("tool_use_id")
    if id not in calls:
        raise wrong(block.at("tool_use_id"), f"no tool_use {id[:128]!r} comes before it")
    parts = _blocks(block, "content")
    text = "\n".join(_text(part, part.text("type")) for part in parts)
    if block.flag("is_error") and not text.lower().startswith("error"):
        text = f"Error: {text}"  # other APIs have no field for it
    return {"role": "tool", "tool_call_id": id, "content": text}


def _assistant(blocks: list[Fields], calls: set[str]) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    uses: list[Message] = []
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_use":
            uses.append(_use(block, calls))
        elif kind == "thinking":
            _only(block, frozenset({"type", "thinking", "signature"}))
            thoughts.append(block.text("thinking"))
        elif kind == "redacted_thinking":
            block.context.warn(f"{block.path} has no effect: only the server that encrypted it can read it")
        else:
            texts.append(_text(block, kind))
    message: Message = {"role": "assistant", "content": _content(texts) if texts or not uses else None}
    if thoughts := [text for text in thoughts if text]:
        message["reasoning_content"] = "\n".join(thoughts)
    if uses:
        message["tool_calls"] = uses
    return message


def _use(block: Fields, calls: set[str]) -> Message:
    _only(block, frozenset({"type", "id", "name", "input", "caller"}))
    id = block.text("id")
    calls.add(id)
    arguments = json_text(block.object("input"), block.at("input"))
    return {
        "id": id,
        "type": "function",
        "function": {"name": block.text("name"), "arguments": arguments},
    }


def _text(block: Fields, kind: str) -> str:
    if kind != "text":
        raise no_media(block.at("type"), kind)
    _only(block, frozenset({"type", "text"}))
    return block.text("text")


def _system(value: Any, path: str, context: RequestContext) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [_text(block, block.text("type")) for block in objects(value, path, context)]


def _content(texts: list[str]) -> Any:
    if len(texts) < 2:
        return texts[0] if texts else ""
    return [{"type": "text", "text": text} for text in texts]


def _only(fields: Fields, known: frozenset[str]) -> None:
    if fields.get("cache_control") is not None:
        fields.context.warn("cache_control has no effect: every prompt is cached")
    fields.only(known, frozenset({"cache_control", "citations"}))
