"""Converts messages from OpenAI's form, to which all requests are parsed, to the form that a template
expects; and finds them in the prompt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from engine import exact_json
from server.chat.template.capabilities import TemplateCapabilities, reasoning_fields, thinking_parts

Message = dict[str, Any]
MAX_WARNINGS = 8
TOKEN_BREAK = "\ufdd0"  # within the texts of special tokens: a noncharacter, removed from what clients send
_NEXT = {  # in regular conversations
    None: ("system", "developer", "user"),
    "system": ("user",),
    "developer": ("user",),
    "user": ("assistant", "calls"),
    "assistant": ("user",),
    "calls": ("tool",),
    "tool": ("tool", "assistant", "calls"),
}


class InvalidMessage(Exception):
    """A message that cannot be rendered. path: the field, below the list of messages."""

    code = "invalid_value"

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


class MessageRefused(InvalidMessage):
    """The chat template refuses a message at its place."""

    code = "template_failed"


def adapt_messages(
    messages: Sequence[Mapping[str, Any]], capabilities: TemplateCapabilities
) -> list[Message]:
    """The messages as a template with these capabilities expects them. Raises InvalidMessage.

    Each message stays one message, except where calls must come one at a time, or the system message must be
    part of the first user message.
    """
    adapted = [_adapt(i, message, capabilities) for i, message in enumerate(messages)]
    _name_results(adapted)
    if not capabilities.parallel_calls:
        adapted = list(_one_call_per_message(adapted))
    if not capabilities.system:
        adapted = _merge_system(adapted, capabilities)
    return adapted


class WaitingCalls:
    """Calls without a result, in order; looked up without a search, since there may be very many."""

    def __init__(self) -> None:
        self._tools: dict[str, str] = {}  # by id
        self._ids: defaultdict[str, dict[str, None]] = defaultdict(dict)  # of each tool, and of all under ""

    def add(self, id: str, tool: str) -> None:
        self.remove(id)
        self._tools[id] = tool
        for name in (tool, ""):
            self._ids[name][id] = None

    def first(self, tool: str) -> str:
        """The id of the first such call of a tool, or of any tool if no name is given; "" if none."""
        return next(iter(self._ids[tool]), "")

    def remove(self, id: str) -> None:
        for name in (self._tools.pop(id, ""), ""):
            self._ids[name].pop(id, None)


def pair_calls(messages: Iterable[Message]) -> list[Message]:
    """Give an id to each call without one, and to each result the id of the first call without a result (of
    its tool).
    """
    waiting = WaitingCalls()
    paired: list[Message] = []
    for i, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            calls = [{**call, "id": call.get("id") or f"call_{i}_{j}"} for j, call in enumerate(calls)]
            for call in calls:
                waiting.add(call["id"], call["function"]["name"])
            message = {**message, "tool_calls": calls}
        elif message["role"] == "tool":
            id = message.get("tool_call_id") or waiting.first(message.get("name", ""))
            waiting.remove(id)
            message = {**message, "tool_call_id": id} if id else message
        paired.append(message)
    return paired


def is_empty(message: Mapping[str, Any]) -> bool:
    """Without text, calls and reasoning."""
    text = text_of(message.get("content"))
    return not (text.strip() or message.get("tool_calls") or message.get("reasoning_content"))


def is_regular(messages: Sequence[Message], continues: bool) -> bool:
    """Whether any template can be expected to accept the order.

    continues: the answer continues the last one.
    """
    before, pending = None, set[str]()
    for message in messages[: len(messages) - continues]:
        calls = message.get("tool_calls") or ()
        kind = "calls" if calls else str(message["role"])
        if kind not in _NEXT[before] or is_empty(message) or (pending and kind != "tool"):
            return False
        if kind == "tool":
            id = message.get("tool_call_id")
            if id not in pending:
                return False
            pending.remove(id)
        pending |= {call.get("id", "") for call in calls}
        before = kind
    last = ("user", "tool") if continues else ("user", "tool", "assistant", None)
    return not pending and before in last


def text_of(content: Any, separator: str = "\n") -> str:
    """The text of content; parts are joined."""
    if isinstance(content, list):
        return separator.join(str(part.get("text", "")) for part in content)
    return content or ""


def calls_as_text(calls: Iterable[Mapping[str, Any]]) -> str:
    """Calls as JSON, for templates that do not render them."""
    return exact_json.write({"tool_calls": [_call_as_json(call) for call in calls]}, ensure_ascii=False)


def _call_as_json(call: Mapping[str, Any]) -> Message:
    text = call["function"].get("arguments") or "{}"
    try:
        arguments = json.loads(text, parse_float=exact_json.read_float)
    except (ValueError, RecursionError):
        arguments = text
    return {"name": call["function"]["name"], "arguments": arguments}


def _adapt(i: int, message: Mapping[str, Any], capabilities: TemplateCapabilities) -> Message:
    role = message["role"]
    if role == "developer" and not capabilities.developer:
        role = "system"
    calls = [
        _call(f"[{i}].tool_calls[{j}]", call, capabilities)
        for j, call in enumerate(message.get("tool_calls") or ())
    ]
    content = message.get("content")
    adapted: Message = {"role": role, "content": _content(content, capabilities, parts=role == "user")}
    if calls and capabilities.null_content and not content:
        adapted["content"] = None
    if name := message.get("name"):
        adapted["name"] = name
    if reasoning := message.get("reasoning_content"):
        if capabilities.thinking_parts and not capabilities.reasoning:
            adapted["content"] = thinking_parts(reasoning, text_of(content))
        else:
            adapted |= reasoning_fields(reasoning)
            if calls and capabilities.one_text_per_call:
                adapted["content"] = ""
    if calls:
        adapted["tool_calls"] = calls
    if id := message.get("tool_call_id"):
        adapted["tool_call_id"] = _short_id(id) if capabilities.short_ids else id
    return adapted


def _content(content: Any, capabilities: TemplateCapabilities, parts: bool = False) -> Any:
    """Content as the template expects it. parts: several parts may stay separate, which few templates support
    except in user messages.
    """
    if isinstance(content, list):
        several = parts and len(content) > 1
        if capabilities.typed_content and (several or not capabilities.string_content):
            return [{"type": "text", "text": part["text"]} for part in content]
        return text_of(content)
    if not capabilities.string_content:
        return [{"type": "text", "text": content or ""}]
    return content or ""


def _call(path: str, call: Mapping[str, Any], capabilities: TemplateCapabilities) -> Message:
    function, id = call["function"], call.get("id") or ""
    arguments: Any = function.get("arguments")
    if capabilities.object_arguments:
        arguments = parse_arguments(f"{path}.function.arguments", arguments)
    if capabilities.short_ids:
        id = _short_id(id)
    return {"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def parse_arguments(path: str, text: str) -> Any:
    """The arguments of a call as an object."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=refuse, parse_float=exact_json.read_float)
    except (ValueError, RecursionError):
        raise InvalidMessage(path, "must be JSON") from None
    if not isinstance(value, dict):
        raise InvalidMessage(path, "must be a JSON object")
    return value


def _short_id(id: str) -> str:
    """The id if it has nine letters and digits, else nine characters of its hash."""
    if re.fullmatch(r"[A-Za-z0-9]{9}", id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _name_results(messages: Iterable[Message]) -> None:
    """Give results the name of their tool, which some templates need; OpenAI's messages only have the id."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message:
            name = names.get(message.get("tool_call_id", ""))
            if name is not None:
                message["name"] = name


def _one_call_per_message(messages: Sequence[Message]) -> Iterable[Message]:
    """Turn calls A, B and then their results into A, its result, B, its result."""
    i = 0
    while i < len(messages):
        message = messages[i]
        i += 1
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            yield message
            continue
        results: list[Message] = []
        while i < len(messages) and messages[i]["role"] == "tool":
            results.append(messages[i])
            i += 1
        for j, call in enumerate(calls):
            first = message if j == 0 else {"role": "assistant", "content": message["content"] and ""}
            yield {**first, "tool_calls": [call]}
            own = [result for result in results if result.get("tool_call_id") == call["id"]]
            yield from own
            results = [result for result in results if result not in own]
        yield from results


def _merge_system(messages: Sequence[Message], capabilities: TemplateCapabilities) -> list[Message]:
    """Prepend leading system messages to the first message after them."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), None)
    if not first:
        return list(messages)
    texts = [text_of(message["content"]) for message in messages[: first + 1]]
    merged = {**messages[first], "content": _content("\n".join(text for text in texts if text), capabilities)}
    return [merged, *messages[first + 1 :]]


class MessagePlaces(NamedTuple):
    """warnings: about messages that the prompt does not contain.

    turn: where the content of the last user message begins, since other conversations may be the same up to
    there. In a model that reasons, also where the last content ends: what the template puts behind it is
    often absent from the next prompt.
    """

    warnings: list[str]
    turn: tuple[int, ...]


def find_places(text: str, messages: Sequence[Mapping[str, Any]], *, reasons: bool) -> MessagePlaces:
    """Look for the contents of the messages in a prompt. reasons: whether the model may reason."""
    warnings: list[str] = []
    places: list[int] = []  # where each content begins
    position = 0  # messages are mostly in order, so that one pass finds all of them
    for i, message in enumerate(messages):
        content = message.get("content")
        pieces = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        begin = None
        for name, piece in [*(("", piece) for piece in pieces), *_reasoning_of(message)]:
            clean = piece.replace(TOKEN_BREAK, "\ufffd").strip()
            start = text.find(clean, position)
            if start >= 0:
                begin = start if begin is None else begin
                position = start + len(clean)
            elif clean not in text and json.dumps(clean, ensure_ascii=False)[1:-1] not in text:
                warnings.append(f"messages[{i}]{name} has no effect: the chat template leaves it out")
                break
        places.append(position if begin is None else begin)
        if len(warnings) == MAX_WARNINGS:
            return MessagePlaces(warnings, ())
    turn = [place for place, message in zip(places, messages, strict=True) if message["role"] == "user"][-1:]
    return MessagePlaces(warnings, (*turn, position) if reasons and position else tuple(turn))


def _reasoning_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    reasoning = message.get("reasoning_content")
    return [(".reasoning_content", reasoning)] if reasoning else []
