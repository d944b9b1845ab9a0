"""Whether an answer continues the last message, which requests contradict themselves, valid tools."""

from __future__ import annotations

from typing import Any

import pytest

from server.chat.request import MAX_TOOLS, MAX_TOOLS_CHARS, ChatInput, Tool, ToolChoice, check_tools
from server.errors import ApiError
from support.api.tools import NOW, TOOLS

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
def test_continuation_depends_on_last_role_and_fields(
    last: Any, fields: dict[str, Any], expected: bool
) -> None:
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


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (("", None, None, None), "t.name"),
        (("a b", None, None, None), "t.name"),
        ((5, None, None, None), "t.name"),
        (("f", 5, None, None), "t.description"),
        (("f", None, "x", None), "t.parameters"),
        (("f", None, {"type": "array"}, None), "t.parameters"),
        (("f", None, None, "yes"), "t.strict"),
    ],
)
def test_invalid_field_is_refused_by_name(fields: tuple[Any, ...], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_tools([Tool(*fields, "t")], ToolChoice())
    assert (caught.value.status_code, caught.value.param) == (400, param)


def test_tool_without_parameters_has_an_empty_schema() -> None:
    assert NOW.schema == {"type": "object", "properties": {}}
    assert Tool("f", None, None, None, "t").wire()["function"]["description"] == ""


def test_tools_with_an_existing_choice_are_accepted() -> None:
    check_tools(TOOLS, ToolChoice("required", ("now",)))
    check_tools((), ToolChoice())


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([NOW] * (MAX_TOOLS + 1), ToolChoice(), "tools"),
        ([NOW, NOW], ToolChoice(), "tools"),
        ([Tool("f", "x" * MAX_TOOLS_CHARS, None, None, "t")], ToolChoice(), "tools"),
        (TOOLS, ToolChoice("required", ("other",)), "tool_choice"),
        ((), ToolChoice("required"), "tool_choice"),
    ],
)
def test_tools_that_do_not_fit_together_are_refused(tools: Any, choice: ToolChoice, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_tools(tools, choice)
    assert (caught.value.status_code, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("parameters", "closed"),
    [
        (None, True),
        ({}, True),
        ({"type": "object"}, True),
        ({"type": "object", "properties": {}}, True),
        ({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, True),
        ({"$schema": "x", "title": "look", "description": "no arguments", "type": "object"}, True),
        ({"type": "object", "additionalProperties": True}, False),
        ({"type": "object", "additionalProperties": {}}, False),
        ({"type": "object", "patternProperties": {"^a": {}}}, False),
        ({"type": "object", "properties": {"a": {}}}, False),
    ],
)
def test_schema_of_parameters_that_describe_nothing_has_no_arguments(parameters, closed):
    schema = Tool("look", None, parameters, None, "tools[0].function").schema
    assert schema == ({"type": "object", "properties": {}} if closed else parameters)
