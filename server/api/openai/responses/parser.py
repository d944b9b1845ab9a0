"""Parses a Responses request into a `ChatInput` and `GenerationOptions`, and reads items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.types import Constraint
from server.api.common.requests.parser import (
    REFUSED,
    Fields,
    check_fields,
    generation_options,
    no_media,
    objects,
    warn_of_stream_options,
    warn_of_unknown,
)
from server.api.common.requests.structured_output import named_schema
from server.api.openai.conversations.access import find_conversation, refuse_known_ids
from server.api.openai.conversations.store import ConversationStore, StoredConversation
from server.api.openai.responses.schema import ResponseInput, ResponseRequest
from server.api.openai.responses.store import not_stored, unsealed
from server.api.openai.responses.tools import (
    HOSTED_ITEMS,
    OUTPUTS,
    PREFIXES,
    Item,
    RequestTools,
    as_function,
    output_text,
    read_call,
    read_tools,
)
from server.api.openai.stores import Stores
from server.chat.request import ChatInput, ReasoningOptions, RequestedConstraint
from server.errors import missing, unsupported, wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.ids import new_id

LOGPROBS, SEALED_REASONING = "message.output_text.logprobs", "reasoning.encrypted_content"
# Fields of the official API that would change the answer.
_REFUSED: dict[str, tuple[Any, ...]] = {
    **REFUSED,
    "prompt": (),
    "context_management": ([],),
    "moderation": (),
}

MAX_ITEMS = 4096
_STATES = ("completed", "incomplete", "in_progress")
_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_COMMON = frozenset({"type", "id", "status"})
# Fields of our own items, which clients send back.
_IDLE = frozenset({"annotations", "logprobs", "parsed", "created_by", "caller", "phase"})
_PREFIXES = {"message": "msg_", "reasoning": "rs_", **PREFIXES, **dict.fromkeys(OUTPUTS, "out_")}


@dataclass(frozen=True)
class Conversation:
    """A request's input as a chat, and as items, of which the last `n_new` came with the request.

    home: the stored conversation to which they and the output are added, and its store.
    """

    chat: ChatInput
    items: list[Item]
    n_new: int
    tools: RequestTools
    home: tuple[ConversationStore, StoredConversation] | None = None


def parse_input(body: ResponseInput, stores: Stores, context: RequestContext) -> Conversation:
    """The input, validated except for what depends on the model. Warns about unknown fields."""
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
        raise wrong("input", "ends with a function call; the call's output must follow")
    has_tools = body.tools is not None or body.tool_choice is not None
    tools = read_tools(body, context) if has_tools else RequestTools()
    chat = ChatInput(
        messages,
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning=_reasoning(body, context),
        answer=_answer(body, context),
        extra=body.chat_template_kwargs or {},
        add_generation_prompt=None if continues_last(items) else True,
        param="input",
        numbered_messages=False,
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
    """How many of the most likely tokens to report for each position; None: no log-probabilities."""
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
    """Whether reasoning items carry `encrypted_content`, for clients that do not use the store."""
    return SEALED_REASONING in (body.include or ())


def parse_options(body: ResponseRequest, context: RequestContext) -> GenerationOptions:
    """The fields that do not become part of the prompt."""
    if body.user is not None:
        context.warn("user has no effect")
    stream_options = body.stream_options
    if stream_options is not None and stream_options.include_usage is not None:
        context.warn("stream_options.include_usage has no effect: the response always has its usage")
    warn_of_stream_options(stream_options, body.stream, context)
    return generation_options(
        body,
        context,
        id_prefix="resp_",
        stream=body.stream,
        max_tokens=body.max_output_tokens,
        limit_field="max_output_tokens",
        logprobs=_logprobs(body, context),
    )


class ItemReader:
    """Reads the input of one request. lookup: finds items of stored responses. calls: call ids so far."""

    def __init__(
        self, lookup: Callable[[str], Item | None], calls: Iterable[str], context: RequestContext
    ) -> None:
        self.lookup, self.calls, self.context = lookup, set(calls), context

    def read(self, value: str | list[Any] | None, path: str = "input") -> list[Item]:
        """The validated items, each with an id. path: the path of `value` in the request."""
        if value is None:
            return []
        if isinstance(value, str):
            text = [{"type": "input_text", "text": value}]
            return [_item("message", None, status="completed", role="user", content=text)]
        if len(value) > MAX_ITEMS:
            raise wrong(path, f"may hold at most {MAX_ITEMS} items, not {len(value)}")
        items = [self._read(fields) for fields in objects(value, path, self.context)]
        return [item for item in items if item is not None]

    def _read(self, fields: Fields) -> Item | None:
        kind = fields.text_or("type", "message" if fields.get("role") is not None else "item_reference")
        if kind == "message":
            return self._message(fields)
        if kind in PREFIXES:
            call = read_call(kind, fields)
            self.calls.add(call["call_id"])
            return _item(kind, _id(fields), **call)
        if kind in OUTPUTS:
            return self._output(kind, fields)
        if kind == "reasoning":
            return self._reasoning(fields)
        if kind == "item_reference":
            return self._reference(fields)
        if kind in HOSTED_ITEMS:
            message = f"items of type {kind!r} are of tools that this server does not run"
            self.context.warn(f"{fields.path} has no effect: {message}")
            return None
        raise unsupported(fields.at("type"), f"items of type {kind[:64]!r} are not supported by this server")

    def _message(self, fields: Fields) -> Item:
        role = fields.one_of("role", _ROLES)
        fields.only(_COMMON | {"role", "content"}, _IDLE)
        own = "output_text" if role == "assistant" else "input_text"
        content = fields.get("content")
        if content is None:
            raise missing(fields.at("content"))
        extra: Item = {"annotations": []} if role == "assistant" else {}
        parts = [{"type": own, "text": text, **extra} for text in _texts(fields, "content")]
        status = fields.one_of("status", _STATES, "completed")
        return _item("message", _id(fields), status=status, role=role, content=parts)

    def _output(self, kind: str, fields: Fields) -> Item:
        # Outputs of the local shell may name their call by `id`.
        name = "id" if kind == "local_shell_call_output" and fields.get("call_id") is None else "call_id"
        call = fields.text(name)
        if call not in self.calls:
            raise wrong(
                fields.at(name), f"no {OUTPUTS[kind].replace('_', ' ')} {call[:128]!r} comes before it"
            )
        output = output_text(kind, fields)
        if output is None:
            fields.only(_COMMON | {"call_id", "output", "name"}, _IDLE)
            if fields.get("output") is None:
                raise missing(fields.at("output"))
            output = "\n".join(_texts(fields, "output"))
        return _item(kind, _id(fields), call_id=call, output=output, status="completed")

    def _reasoning(self, fields: Fields) -> Item:
        fields.only(_COMMON | {"summary", "content", "encrypted_content"})
        parts = {
            name: [part.text("text") for part in fields.objects(name)] for name in ("summary", "content")
        }
        sealed = fields.text_or("encrypted_content", "")
        if sealed and not parts["content"]:
            text = unsealed(sealed)
            if text is not None:
                parts["content"] = [text]
            else:
                param, reason = (
                    fields.at("encrypted_content"),
                    "only the server that encrypted it can read it",
                )
                self.context.warn(f"{param} has no effect: {reason}")
        return _item(
            "reasoning",
            _id(fields),
            summary=[{"type": "summary_text", "text": text} for text in parts["summary"]],
            content=[{"type": "reasoning_text", "text": text} for text in parts["content"]],
        )

    def _reference(self, fields: Fields) -> Item:
        fields.only(_COMMON)
        id = fields.text("id")
        item = self.lookup(id)
        if item is None:
            raise wrong(
                fields.at("id"), f"no stored response has the item {id[:128]!r}; send the item itself"
            )
        if item["type"] in PREFIXES:
            self.calls.add(item["call_id"])
        return item


def _item(kind: str, id: str | None, **fields: Any) -> Item:
    return {"id": id or new_id(_PREFIXES[kind]), "type": kind, **fields}


def _id(fields: Fields) -> str | None:
    id = fields.text_or("id", "")
    if len(id) > 256:
        raise wrong(fields.at("id"), "may have at most 256 characters")
    return id or None


def _texts(fields: Fields, name: str) -> list[str]:
    """The texts of a string or of a list of parts."""
    if isinstance(fields.get(name), str):
        return [fields.text(name)]
    texts = []
    for part in fields.objects(name):
        kind = part.text("type")
        if kind not in _TEXTS:
            raise no_media(part.at("type"), kind)
        part.only(frozenset({"type", _TEXTS[kind]}), _IDLE)
        texts.append(part.text(_TEXTS[kind]))
    return texts


def call_ids(items: Iterable[Item]) -> Iterable[str]:
    """The ids of tool calls."""
    return (item["call_id"] for item in items if item["type"] in PREFIXES)


def chat_messages(items: Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """The items as chat messages. Consecutive reasoning, text and calls of an assistant are one message."""
    messages: list[dict[str, Any]] = []
    turn: dict[str, Any] | None = None  # the assistant's message that may still grow
    for item in items:
        kind = item["type"]
        if kind in OUTPUTS:
            result = {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
            messages.append(result)
            turn = None
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _content(item)})
            turn = None
        else:
            if turn is None or not _fits(turn, item):
                turn = {"role": "assistant", "content": None}
                messages.append(turn)
            _extend(turn, item)
    if instructions is not None:
        _instruct(messages, instructions)
    return messages


def _fits(turn: dict[str, Any], item: Item) -> bool:
    if item["type"] in PREFIXES:
        return True
    return "tool_calls" not in turn and turn["content"] is None


def _extend(turn: dict[str, Any], item: Item) -> None:
    if item["type"] == "message":
        turn["content"] = _content(item)
    elif item["type"] == "reasoning":
        parts = item["content"] or item["summary"]
        text = "\n".join(part["text"] for part in parts)
        before = turn.get("reasoning_content")
        if text:
            turn["reasoning_content"] = text if before is None else f"{before}\n{text}"
    else:
        call = {"id": item["call_id"], "type": "function", "function": as_function(item)}
        turn.setdefault("tool_calls", []).append(call)


def _content(item: Item) -> Any:
    texts = [part["text"] for part in item["content"]]
    if len(texts) < 2:
        return texts[0] if texts else ""
    return [{"type": "text", "text": text} for text in texts]


def _instruct(messages: list[dict[str, Any]], instructions: str) -> None:
    """Add the instructions to a leading system message, or as one: most templates accept only one."""
    first = messages[0] if messages else {"role": "user"}
    if first["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": instructions})
        return
    text = first["content"]
    if not isinstance(text, str):
        text = "\n".join(part["text"] for part in text)
    messages[0] = {"role": first["role"], "content": f"{instructions}\n\n{text}"}


def continues_last(items: Sequence[Item]) -> bool:
    """Whether the answer continues the last item, an incomplete assistant message."""
    if not items or items[-1]["type"] != "message" or items[-1]["role"] != "assistant":
        return False
    status: str = items[-1]["status"]
    return status != "completed"
