"""SmolLM2's own template: it accepts every order, so nothing is changed and every text is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.tokenizer import load_tokenizer
from server.chat.chat_format import load_chat_formats
from server.chat.prompt import ChatFormats, render_prompt
from server.chat.request import ChatInput

ORDERS = [
    "system user assistant system user",
    "user system",
    "system system user",
    "user user",
    "user assistant assistant user",
    "assistant user",
    "system",
]


@pytest.fixture(scope="module")
def formats(smollm2: Path) -> ChatFormats:
    actual = load_chat_formats(load_tokenizer(smollm2))
    assert isinstance(actual, ChatFormats)
    return actual


@pytest.mark.parametrize("order", ORDERS)
def test_messages_are_kept_as_they_are(order: str, formats: ChatFormats) -> None:
    roles = order.split()
    messages = [{"role": role, "content": f"Text {i}."} for i, role in enumerate(roles)]
    prompt = render_prompt(ChatInput(messages), formats, None)
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    assert prompt.warnings == []
    assert prompt.text.endswith(f"{turns}<|im_start|>assistant\n")


def test_results_without_calls_are_shown(formats: ChatFormats) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "tool", "content": "12:00", "tool_call_id": "x"}]
    assert "12:00" in render_prompt(ChatInput(messages), formats, None).text
