"""What is tried, and what the client is told, where a chat template refuses a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.chat.message_order import OrderedMessages
from server.chat.messages import Message, MessageRefused
from server.chat.template.render import TemplateFailed

_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")

Render = Callable[[list[Message], bool], str]  # messages, and whether the assistant's turn begins after them


def accepted_effort(render: Callable[[str], None], effort: str | None) -> str | None:
    """The nearest effort that the template accepts; None: the effort is not the reason.

    render: a short conversation with an effort. Raises TemplateFailed.
    """
    if effort not in _LEVELS:
        return None
    place = _LEVELS.index(effort)
    nearest = sorted(range(len(_LEVELS)), key=lambda i: (abs(i - place), i < place))
    for level in map(_LEVELS.__getitem__, nearest):
        try:
            render(level)
        except TemplateFailed:
            continue
        return None if level == effort else level
    return None


def find_refused(render: Render, ordered: OrderedMessages) -> MessageRefused | None:
    """The first message with which the template fails. None: it does not depend on the messages."""

    def fails(messages: list[Message]) -> str | None:
        try:
            render(messages, messages[-1]["role"] != "assistant")
        except TemplateFailed as failure:
            return str(failure)
        return None

    messages = ordered.messages
    reason = fails(messages) if messages else None
    if reason is None or fails([{"role": "user", "content": "Hello"}]):
        return None
    rendered, failing = 0, len(messages)  # numbers of messages
    while failing - rendered > 1:
        middle = (rendered + failing) // 2
        if fails(messages[:middle]):
            failing = middle
        else:
            rendered = middle
    role = messages[rendered]["role"]
    return MessageRefused(f"[{ordered.indices[rendered]}]", f"the {role} message cannot stand here: {reason}")


def with_descriptions(tool: dict[str, Any]) -> dict[str, Any]:
    """Tools with a description of every argument and other fields without which some templates fail."""
    function = tool["function"]
    parameters = function["parameters"]
    described = {**parameters, **_described_parts(parameters)}
    return {**tool, "function": {**function, "parameters": described}}


def _described(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if schema.get("type") == "object" else {}
    return {"description": "", **more, **schema, **_described_parts(schema)}


def _described_parts(schema: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if isinstance(properties := schema.get("properties"), dict):
        parts["properties"] = {name: _described(value) for name, value in properties.items()}
    if isinstance(items := schema.get("items"), dict):
        parts["items"] = _described(items)
    return parts
