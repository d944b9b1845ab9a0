"""From a request for a response to what a chat is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.types import Constraint
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
from server.api.openai.responses.items import Item, Reader, calls_of, conversation, goes_on, not_kept
from server.api.openai.responses.schema import ResponseInput, ResponseRequest
from server.chat.request import RequestedConstraint
from server.chat.tool_calls import Tool, ToolChoice, make_tool
from server.errors import bad_request
from server.input.chat import ChatInput, ReasoningOptions
from server.input.constraints import named_schema

if TYPE_CHECKING:
    from server.api.common.response_store import ResponseStore

LOGPROBS = "message.output_text.logprobs"
# Fields of the official API that would change the answer.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "conversation": (),
    "prompt": (),
    "context_management": ([],),
    "moderation": (),
}
_TOOL = frozenset({"type", "name", "description", "parameters", "strict"})


@dataclass
class Given:
    """A request's conversation: as a chat, and as items, of which the last `n_new` came with it."""

    chat: ChatInput
    items: list[Item]
    n_new: int


def given_by(body: ResponseInput, kept: ResponseStore, owner: bytes | None, warnings: list[str]) -> Given:
    """Everything in it is checked, but for what depends on the model."""
    refuse_fields(body, _REFUSED)
    if body.truncation == "auto":
        message = "messages are not left out by themselves; send 'disabled' and shorten the input"
        raise unsupported("truncation", message)
    if body.input is None and body.previous_response_id is None:
        raise bad_request("input: is required", "input", "missing_field")
    before: list[Item] = []
    if body.previous_response_id is not None:
        previous = kept.get(body.previous_response_id, owner)
        if previous is None:
            raise not_kept(body.previous_response_id, "previous_response_id")
        before = previous.items()
    reader = Reader(lambda id: kept.item(id, owner), calls_of(before), warnings)
    new = reader.read(body.input)
    items = before + new
    messages = conversation(items, body.instructions)
    if not messages:
        raise wrong("input", "must hold at least one item")
    if messages[-1].get("tool_calls"):
        raise wrong("input", "ends with a function call; its output must follow")
    chat = ChatInput(
        messages,
        tools=_tools(body, warnings),
        tool_choice=_tool_choice(body, warnings),
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=_reasoning(body, warnings),
        answer=_answer(body, warnings),
        extra=body.chat_template_kwargs or {},
        add_generation_prompt=None if goes_on(items) else True,
        param="input",
    )
    return Given(chat, items, len(new))


def _tools(body: ResponseInput, warnings: list[str]) -> list[Tool]:
    found = []
    for tool in objects(body.tools, "tools", warnings):
        kind = tool.text_or("type", "function")
        if kind != "function":
            message = f"tools of type {kind[:64]!r} are not run by this server; only functions can be given"
            raise unsupported(tool.at("type"), message)
        tool.only(_TOOL)
        get = tool.get
        found.append(make_tool(get("name"), get("description"), get("parameters"), get("strict"), tool.path))
    return found


def _tool_choice(body: ResponseInput, warnings: list[str]) -> ToolChoice:
    asked = body.tool_choice
    if asked is None or asked == "auto":
        return ToolChoice()
    if asked == "none":
        return ToolChoice("none")
    if asked == "required":
        return ToolChoice("required")
    if isinstance(asked, str):
        raise wrong("tool_choice", "must be 'none', 'auto', 'required' or an object")
    fields = Fields(asked, "tool_choice", warnings)
    kind = fields.text("type")
    if kind == "function":
        fields.only(frozenset({"type", "name"}))
        return ToolChoice("required", (fields.text("name"),))
    if kind == "allowed_tools":
        fields.only(frozenset({"type", "mode", "tools"}))
        names = tuple(tool.text("name") for tool in fields.objects("tools"))
        mode = fields.one_of("mode", ("auto", "required"), "auto")
        return ToolChoice("required" if mode == "required" else "auto", names)
    raise unsupported("tool_choice.type", f"the type {kind[:64]!r} is not supported; name a function")


def _reasoning(body: ResponseInput, warnings: list[str]) -> ReasoningOptions:
    asked = body.reasoning
    if asked is None:
        return ReasoningOptions()
    if asked.summary is not None:
        warn(warnings, "reasoning.summary has no effect: reasoning is given as it is")
    _extra(asked.model_extra, "reasoning", warnings)
    return ReasoningOptions(effort=asked.effort)


def _answer(body: ResponseInput, warnings: list[str]) -> RequestedConstraint | None:
    if body.text is None:
        return None
    if body.text.verbosity not in (None, "medium"):
        warn(warnings, "text.verbosity has no effect")
    _extra(body.text.model_extra, "text", warnings)
    if body.text.format is None:
        return None
    fields = Fields(body.text.format, "text.format", warnings)
    kind = fields.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        named = {name: value for name, value in body.text.format.items() if name != "type"}
        return named_schema(named, "text.format", warnings)
    fields.only(frozenset({"type"}))
    return None if kind == "text" else RequestedConstraint(Constraint("json_object"), "text.format")


def _extra(extra: dict[str, Any] | None, path: str, warnings: list[str]) -> None:
    for name, value in (extra or {}).items():
        if value is not None:
            warn(warnings, f"{path}.{name[:64]} has no effect")


def logprobs_of(body: ResponseRequest, warnings: list[str]) -> int | None:
    """How many of the likeliest tokens are told with each; None: no log-probabilities at all."""
    include = body.include or []
    for name in include:
        if name != LOGPROBS:
            warn(warnings, f"include: {name} has no effect")
    if LOGPROBS in include:
        return body.top_logprobs or 0
    if body.top_logprobs:
        warn(warnings, f"top_logprobs has no effect: include does not name {LOGPROBS}")
    return None


def echo_of(body: ResponseRequest, chat: ChatInput) -> dict[str, Any]:
    """Fields of the request that come back in the response, as the official API has them."""
    reasoning, text = body.reasoning, body.text
    format = (text and text.format) or {"type": "text"}
    tools = [{**tool.wire()["function"], "type": "function", "strict": tool.strict} for tool in chat.tools]
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": chat.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
        "service_tier": "default",
        "text": {"format": format, "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": tools,
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
        "user": body.user,
    }


def generation_of(body: ResponseRequest, warnings: list[str]) -> GenerationFields:
    """The fields that `server.input.processor` reads."""
    if body.background:
        raise unsupported("background", "a response is made while its client waits; send false")
    if body.user is not None:
        warn(warnings, "user has no effect")
    if body.stream_options is not None and body.stream_options.include_usage is not None:
        warn(warnings, "stream_options.include_usage has no effect: the response always has its usage")
    return generation_fields(body, stream_options=body.stream_options)
