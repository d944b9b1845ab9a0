"""Arguments that a model wrote, as an object."""

from __future__ import annotations

import json

import msgspec
import pytest

from server.api.common.replies.tool_arguments import arguments_object
from server.generation.request_context import AccessRecord, RequestContext
from support.fakes.engine import make_app


@pytest.fixture
def context() -> RequestContext:
    return RequestContext(make_app().state.ggserve, AccessRecord("x"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("{}", {}),
        ('{\n "a": [1, "é\u2028"]\n}', {"a": [1, "é\u2028"]}),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
    ],
)
def test_object_arguments_stay_unchanged_on_one_line(text, value, context):
    data = msgspec.json.encode(arguments_object(text, "x", context))
    assert json.loads(data) == value
    assert len(data.decode().splitlines()) == 1
    assert context.warnings == []


def test_arguments_with_long_numbers_keep_their_digits(context):
    numbers = ["1234567890123456789012345678901", "0.1234567890123456789012345"]
    data = msgspec.json.encode(arguments_object(f'{{"a": {numbers[0]}, "b": {numbers[1]}}}', "x", context))
    assert all(number.encode() in data for number in numbers)


@pytest.mark.parametrize("text", ["{", "[1]", "5", '"x"', "null", '{"a": NaN}', '{"a": 1e999}', "[" * 10_000])
def test_arguments_that_are_not_an_object_become_an_empty_one_with_a_warning(text, context):
    assert arguments_object(text, "tool_calls[1]", context) == {}
    assert context.warnings == ["tool_calls[1]: the model did not write a JSON object, so it is empty"]
