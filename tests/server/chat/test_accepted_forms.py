"""Probing of orders of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.chat.accepted_forms import AcceptedForms
from server.chat.template.render import TemplateFailed, TemplateLimitExceeded

Render = Callable[[list[dict[str, Any]], Sequence[Any]], str]
FORM = ("system", "user", "system", "user")


def joined(messages: list[dict[str, Any]], tools: Sequence[Any]) -> str:
    return " ".join(message["content"] or "" for message in messages)


def reordered(order: Sequence[int]) -> Render:
    """Renders FORM in this order, and a regular conversation as it is."""
    return lambda messages, tools: joined(
        [messages[i] for i in order] if len(messages) == len(FORM) else messages, tools
    )


@pytest.mark.parametrize(
    ("order", "accepted"),
    [
        ((0, 1, 2, 3), True),
        ((1, 2, 0, 3), True),  # a system message at the beginning may be moved
        ((0, 2, 1, 3), False),
        ((0, 1, 3), False),  # left out
        ((0, 1, 2, 2, 3), False),  # twice
    ],
)
def test_form_is_accepted_if_every_text_is_shown_once_in_order(order: Sequence[int], accepted: bool) -> None:
    assert AcceptedForms().accepts(FORM, reordered(order)) is accepted


def test_each_form_is_rendered_once() -> None:
    rendered: list[int] = []

    def render(messages: list[dict[str, Any]], tools: Sequence[Any]) -> str:
        rendered.append(len(messages))
        if messages[0]["role"] == "system":
            raise TemplateFailed("no")
        return joined(messages, tools)

    forms = AcceptedForms()
    assert [forms.accepts(FORM, render) for _ in range(3)] == [False] * 3
    assert rendered == [4, 3]  # and a regular conversation


def test_probes_have_a_tool_and_matching_call_ids() -> None:
    def render(messages: list[dict[str, Any]], tools: Sequence[Any]) -> str:
        assert len(tools) == 1
        call = messages[1]["tool_calls"][0]
        assert call["id"] == messages[2]["tool_call_id"] != messages[3]["tool_call_id"]
        return joined([messages[0]], tools) + call["function"]["arguments"] + joined(messages[2:], tools)

    assert AcceptedForms().accepts(("user", "calls", "tool", "tool:other", "user:empty"), render)


def test_nothing_is_tried_after_a_limit_is_exceeded() -> None:
    def slow(messages: list[dict[str, Any]], tools: Sequence[Any]) -> str:
        raise TemplateLimitExceeded("too long")

    forms = AcceptedForms()
    assert not forms.accepts(FORM, slow)
    assert forms.accepts(("user", "user"), slow)  # the conversation is rendered as it is


def test_every_form_is_accepted_if_a_regular_conversation_is_not_shown() -> None:
    forms = AcceptedForms()
    assert forms.accepts(FORM, lambda messages, tools: "")
    assert forms.accepts(("user", "calls", "user"), lambda messages, tools: "")
