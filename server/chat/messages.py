"""A conversation in the form that one template wants: clients all send it in OpenAI's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from server.chat.template.capabilities import TemplateCapabilities, reasoning_fields

Message = dict[str, Any]


class InvalidMessage(Exception):
    """A message that no template could take. `where` is a path below the list of messages."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__(text)
        self.where = where


def adapt_messages(
    messages: Sequence[Mapping[str, Any]], capabilities: TemplateCapabilities
) -> list[Message]:
    """The messages as a template with these traits takes them. Raises BadMessage.

    Every message keeps its place, but for calls that have to come one by one and a system message that has
    to be a part of the user's.
    """
    fitted = [_fitted(i, message, capabilities) for i, message in enumerate(messages)]
    _name_results(fitted)
    if not capabilities.parallel_calls:
        fitted = list(_one_by_one(fitted))
    if not capabilities.system:
        fitted = _without_system(fitted, capabilities)
    return fitted


def text_of(content: Any, between: str = "\n") -> str:
    """Content as one text."""
    if isinstance(content, list):
        return between.join(str(part.get("text", "")) for part in content)
    return content or ""


def _fitted(i: int, message: Mapping[str, Any], capabilities: TemplateCapabilities) -> Message:
    role = message["role"]
    if role == "developer" and not capabilities.developer:
        role = "system"
    calls = [
        _call(f"[{i}].tool_calls[{j}]", call, capabilities)
        for j, call in enumerate(message.get("tool_calls") or ())
    ]
    content = message.get("content")
    fitted: Message = {"role": role, "content": _content(content, capabilities, parts=role == "user")}
    if calls and capabilities.null_content and not content:
        fitted["content"] = None
    if name := message.get("name"):
        fitted["name"] = name
    if reasoning := message.get("reasoning_content"):
        fitted |= reasoning_fields(reasoning)
    if calls:
        fitted["tool_calls"] = calls
    if (id := message.get("tool_call_id")) is not None:
        fitted["tool_call_id"] = _short(id) if capabilities.short_ids else id
    return fitted


def _content(content: Any, capabilities: TemplateCapabilities, parts: bool = False) -> Any:
    """`parts`: more than one may stay as they are, which few templates can do of others than users."""
    if isinstance(content, list):
        several = parts and len(content) > 1
        if capabilities.typed_content and (several or not capabilities.string_content):
            return [{"type": "text", "text": part["text"]} for part in content]
        return text_of(content)
    if not capabilities.string_content:
        return [{"type": "text", "text": content or ""}]
    return content or ""


def _call(where: str, call: Mapping[str, Any], capabilities: TemplateCapabilities) -> Message:
    function, id = call["function"], call.get("id") or ""
    arguments: Any = function.get("arguments")
    if capabilities.object_arguments:
        arguments = _parsed(f"{where}.function.arguments", arguments)
    if capabilities.short_ids:
        id = _short(id)
    return {"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _parsed(where: str, text: str) -> Any:
    """Arguments of a call as the object that templates run through."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise InvalidMessage(where, "must be JSON") from None
    if not isinstance(value, dict):
        raise InvalidMessage(where, "must be a JSON object")
    return value


def _short(id: str) -> str:
    """Nine letters and digits for any id."""
    if re.fullmatch(r"[A-Za-z0-9]{9}", id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _name_results(messages: Iterable[Message]) -> None:
    """Some templates want to know which tool a result is of; OpenAI's messages have only the id."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names[call["id"]] = call["function"]["name"]
        if message["role"] == "tool" and "name" not in message:
            name = names.get(message.get("tool_call_id", ""))
            if name is not None:
                message["name"] = name


def _one_by_one(messages: Sequence[Message]) -> Iterable[Message]:
    """A, B called at once, then their results → A, its result, B, its result."""
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
            mine = [result for result in results if result.get("tool_call_id") == call["id"]]
            yield from mine
            results = [result for result in results if result not in mine]
        yield from results


def _without_system(messages: Sequence[Message], capabilities: TemplateCapabilities) -> list[Message]:
    """What the system says at the beginning becomes the beginning of the first message after it."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), None)
    if not first:
        return list(messages)
    texts = [text_of(message["content"]) for message in messages[: first + 1]]
    merged = {**messages[first], "content": _content("\n".join(text for text in texts if text), capabilities)}
    return [merged, *messages[first + 1 :]]
