"""A tool of a request: what is refused by name, and what has no effect."""

from __future__ import annotations

from typing import Any

import pytest

from server.api.common.requests.parser import choice_by_mode, parse_calls, parse_tools
from server.api.common.requests.tool_fields import CALL_EXAMPLE, TOOL_EXAMPLE, ToolCall, ToolField
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from support.fakes.engine import make_app


@pytest.fixture
def context() -> RequestContext:
    return RequestContext(make_app().state.ggserve, AccessRecord("id"))


def test_parse_of_a_valid_tool_gives_the_tool(context: RequestContext) -> None:
    (tool,) = parse_tools([ToolField.model_validate(TOOL_EXAMPLE)], context)
    assert (tool.name, tool.strict, context.warnings) == ("get_weather", None, [])


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"type": "web_search"}, "tools[1].type", "unsupported_value"),
        ({"type": "function"}, "tools[1].function", "missing_field"),
    ],
)
def test_parse_of_an_invalid_tool_names_its_place(
    fields: dict[str, Any], param: str, code: str, context: RequestContext
) -> None:
    with pytest.raises(ApiError) as raised:
        parse_tools([ToolField.model_validate(TOOL_EXAMPLE), ToolField.model_validate(fields)], context)
    assert (raised.value.status_code, raised.value.param, raised.value.code) == (400, param, code)


def test_parse_warns_of_fields_at_both_levels(context: RequestContext) -> None:
    fields = {"type": "function", "odd": 1, "function": {"name": "a", "other": 2, "empty": []}}
    parse_tools([ToolField.model_validate(fields)], context)
    assert context.warnings == ["tools[0].odd has no effect", "tools[0].function.other has no effect"]


def test_calls_have_arguments_as_text_and_an_id_if_they_have_one(context: RequestContext) -> None:
    bare = {"function": {"name": "f", "arguments": {"a": 1.5}}, "index": 3, "odd": 1}
    none = {"function": {"name": "g", "index": 0}}
    calls = parse_calls(map(ToolCall.model_validate, (CALL_EXAMPLE, bare, none)), "messages[4]", context)
    assert calls[0] == CALL_EXAMPLE
    assert [(call["id"], call["function"]["arguments"]) for call in calls[1:]] == [
        ("", '{"a": 1.5}'),
        ("", "{}"),
    ]
    assert context.warnings == ["messages[4].tool_calls[1].odd has no effect"]


def test_choice_by_mode_takes_only_its_three_words() -> None:
    for mode in ("none", "auto", "required"):
        assert choice_by_mode(mode).mode == mode
    for other in ("", "maybe", 5, ["auto"], True):
        with pytest.raises(ApiError, match="tool_choice: must be 'none', 'auto', 'required' or an object"):
            choice_by_mode(other)
