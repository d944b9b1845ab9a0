"""Turns of Anthropic's conversations as chat messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.api.anthropic.schema import MessageInput
from server.api.common.requests.json_reader import Fields, json_text, no_media, objects
from server.errors import wrong
from server.generation.request_context import RequestContext

Message = dict[str, Any]
_ROLES = ("user", "assistant", "system")


def conversation(body: MessageInput, context: RequestContext) -> list[Message]:
    """Everything in it is checked. Turns of one role in a row become one."""
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
        raise wrong("messages", "the last one uses a tool; the result must follow")
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
    """Results come before the text, since templates want them right behind the calls."""
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
            block.context.warn(f"{block.path} has no effect: only its maker can read it")
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
