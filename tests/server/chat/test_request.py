"""Whether an answer continues the last message, and which requests contradict themselves."""

from __future__ import annotations

from typing import Any

import pytest

from server.chat.request import ChatInput
from server.errors import ApiError

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "Once"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("last", "fields", "expected"),
    [
        (USER, {}, False),
        (USER, {"add_generation_prompt": False}, False),
        (ASSISTANT, {}, True),
        (ASSISTANT, {"add_generation_prompt": True}, False),
        (ASSISTANT, {"add_generation_prompt": False}, False),
        (ASSISTANT, {"continue_final_message": False}, False),
        (ASSISTANT, {"continue_final_message": True, "add_generation_prompt": False}, True),
        (ASSISTANT, {"continue_final_message": "reasoning_content"}, True),
    ],
)
def test_continues_by_last_role_and_fields(last: Any, fields: dict[str, Any], expected: bool) -> None:
    chat = ChatInput([USER, last], **fields)
    assert chat.continues is expected
    chat.check_turns()


def test_no_messages_continue_nothing() -> None:
    assert not ChatInput([]).continues


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        (
            [ASSISTANT],
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ([USER], {"continue_final_message": True}, "continue_final_message"),
        ([USER, {**ASSISTANT, "tool_calls": [CALL]}], {}, "messages[1].tool_calls"),
        ([USER, ASSISTANT, ASSISTANT], {}, "messages[2]"),
        ([ASSISTANT, ASSISTANT], {"param": "input"}, "input[1]"),
    ],
)
def test_contradictions_are_refused_by_field(messages: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        ChatInput(messages, **fields).check_turns()
    assert (caught.value.status_code, caught.value.param) == (400, param)
