"""From a request for a response to a `ChatInput` and `GenerationOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine import exact_json
from engine.types import Constraint
from server.api.common.requests.parser import (
    REFUSED,
    Fields,
    check_fields,
    generation_options,
    warn_of_unknown,
)
from server.api.common.requests.structured_output import named_schema
from server.api.openai.conversations.access import find_conversation, refuse_known_ids
from server.api.openai.conversations.store import ConversationStore, StoredConversation
from server.api.openai.responses.items import (
    Item,
    ItemReader,
    call_ids,
    chat_messages,
    continues_last,
    not_stored,
)
from server.api.openai.responses.schema import ResponseInput, ResponseRequest
from server.api.openai.responses.tools import RequestTools, read_choice, read_tools
from server.api.openai.stores import Stores
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint
from server.chat.tool_calls import Tool
from server.chat.tool_calls.tool import ToolChoice
from server.errors import missing, unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext

LOGPROBS, SEALED_REASONING = "message.output_text.logprobs", "reasoning.encrypted_content"
# Fields of the official API that would change the answer.
_REFUSED: dict[str, tuple[Any, ...]] = {
    **REFUSED,
    "prompt": (),
    "context_management": ([],),
    "moderation": (),
}


@dataclass(frozen=True)
class Conversation:
    """A request's input as a chat, and as items, of which the last `n_new` came with it.

    home: the stored conversation that gets them and the output, and its store.
    """

    chat: ChatInput
    items: list[Item]
    n_new: int
    tools: RequestTools
    home: tuple[ConversationStore, StoredConversation] | None = None


def parse_input(body: ResponseInput, stores: Stores, context: RequestContext) -> Conversation:
    """Checked except for what depends on the model. Warns of unknown fields."""
    check_fields(body, context, _REFUSED)
    if body.truncation == "auto":
        message = "input is not truncated automatically; send 'disabled' and shorten it"
        raise unsupported("truncation", message)
    if body.conversation is not None and body.previous_response_id is not None:
        raise wrong("conversation", "cannot go together with previous_response_id")
    if body.input is None and body.previous_response_id is None and body.conversation is None:
        raise missing("input")
    before: list[Item] = []
    if body.previous_response_id is not None:
        previous = stores.responses.get(body.previous_response_id, context.owner)
        if previous is None:
            raise not_stored(body.previous_response_id, "previous_response_id")
        before = previous.content.items()
    home = None
    if body.conversation is not None:
        home = find_conversation(body.conversation, "conversation", stores.conversations, context)
        before = home.items()
    reader = ItemReader(lambda id: stores.responses.item(id, context.owner), call_ids(before), context)
    new = reader.read(body.input)
    if home is not None:
        refuse_known_ids(new, home, "input")
    items = before + new
    messages = chat_messages(items, body.instructions)
    if not messages:
        raise wrong("input", "must hold at least one item")
    if messages[-1].get("tool_calls"):
        raise wrong("input", "ends with a function call; its output must follow")
    tools, choice = RequestTools(), ToolChoice()
    if body.tools is not None or body.tool_choice is not None:
        tools, choice = read_tools(body, context), read_choice(body, context)
    chat = ChatInput(
        messages,
        tools=tools.tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=_reasoning(body, context),
        answer=_answer(body, context),
        extra=body.chat_template_kwargs or {},
        add_generation_prompt=None if continues_last(items) else True,
        param="input",
        numbered_messages=False,
        schema_field="parameters",
    )
    place = None if home is None else (stores.conversations, home)
    return Conversation(chat, items, len(new), tools, place)


def _reasoning(body: ResponseInput, context: RequestContext) -> ReasoningOptions:
    reasoning = body.reasoning
    if reasoning is None:
        return ReasoningOptions()
    if reasoning.summary is not None:
        context.warn("reasoning.summary has no effect: reasoning is returned in full")
    warn_of_unknown(reasoning.model_extra, "reasoning", context)
    return ReasoningOptions(effort=reasoning.effort)


def _answer(body: ResponseInput, context: RequestContext) -> RequestedConstraint | None:
    if body.text is None:
        return None
    if body.text.verbosity not in (None, "medium"):
        context.warn("text.verbosity has no effect")
    warn_of_unknown(body.text.model_extra, "text", context)
    if body.text.format is None:
        return None
    fields = Fields(body.text.format, "text.format", context)
    kind = fields.one_of("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return named_schema(fields, frozenset({"type"}))
    fields.only(frozenset({"type"}))
    return None if kind == "text" else RequestedConstraint(Constraint("json_object"), "text.format")


def _logprobs(body: ResponseRequest, context: RequestContext) -> int | None:
    """How many of the most likely tokens are reported with each; None: no log-probabilities."""
    include = body.include or []
    for name in include:
        if name not in (LOGPROBS, SEALED_REASONING):
            context.warn(f"include: {name} has no effect")
    if LOGPROBS in include:
        return body.top_logprobs or 0
    if body.top_logprobs:
        context.warn(f"top_logprobs has no effect: include does not name {LOGPROBS}")
    return None


def seals_reasoning(body: ResponseRequest) -> bool:
    """Whether reasoning items carry what clients without a store send back: `encrypted_content`."""
    return SEALED_REASONING in (body.include or ())


def echoed_fields(body: ResponseRequest, chat: ChatInput) -> dict[str, Any]:
    """Fields of the request that the response repeats, as in the official API."""
    reasoning, text = body.reasoning, body.text
    format = (text and text.format) or {"type": "text"}
    functions = {tool.name: tool for tool in chat.tools}
    tools = [_echoed_tool(tool, functions) for tool in body.tools or ()]
    return {
        "background": bool(body.background),
        "conversation": body.conversation and {"id": body.conversation},
        "instructions": body.instructions,
        "max_output_tokens": None if body.max_output_tokens == -1 else body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": chat.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
        "service_tier": "default",
        "text": {"format": _exact(format), "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": _exact(tools),
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
        "user": body.user,
    }


def _echoed_tool(tool: dict[str, Any], functions: Mapping[str, Tool]) -> dict[str, Any]:
    """Functions with every field that strict readers want."""
    if tool.get("type", "function") != "function":
        return tool
    function = functions[tool["name"]]
    return {**function.wire()["function"], "type": "function", "strict": function.strict}


def _exact(value: Any) -> msgspec.Raw:
    """A part of the response with every digit that the request has."""
    return msgspec.Raw(exact_json.dumps(value).encode())


def parse_options(body: ResponseRequest, context: RequestContext) -> GenerationOptions:
    """The fields that do not become the prompt."""
    if body.user is not None:
        context.warn("user has no effect")
    stream_options = body.stream_options
    if stream_options is not None:
        if stream_options.include_usage is not None:
            context.warn("stream_options.include_usage has no effect: the response always has its usage")
        if not body.stream:
            context.warn("stream_options has no effect: stream is not true")
        if stream_options.include_obfuscation:
            context.warn("stream_options.include_obfuscation has no effect")
    return generation_options(
        body,
        context,
        id_prefix="resp_",
        stream=body.stream,
        max_tokens=body.max_output_tokens,
        limit_field="max_output_tokens",
        logprobs=_logprobs(body, context),
    )
