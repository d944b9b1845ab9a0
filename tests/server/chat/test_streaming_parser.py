"""Parsers read an output in pieces; how it is cut changes nothing, and nothing is held back for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.output import OutputDelta, ToolCallDelta
from support.api.tools import (
    CALLS,
    new_parser,
    read,
)
from support.quick import every, examples

NOISE = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "{",
    "}",
    '"name"',
    ": ",
    '"get_weather"',
    "[",
    "]",
    "\n",
    " x",
]
NOISE += [
    "<|START_ACTION|>",
    "Action:",
    "```json",
    "<function=",
    "get_weather",
    ">",
    "<parameter=",
    "</parameter>",
    "\\",
]
NOISE += [
    "<|channel|>",
    "analysis",
    "<|message|>",
    "<|end|>",
    "final",
    "[ARGS]",
    "<|python_tag|>",
    '"arguments"',
    "é",
]


@pytest.mark.parametrize("call_format", every(3, CALLS))
@examples(60)
@given(data=st.data())
def test_any_split_of_the_text_gives_the_same_answer(call_format, data):
    """Of calls with anything in between, and of their fragments."""
    noise = st.lists(st.sampled_from([*NOISE, CALLS[call_format]]), max_size=8).map("".join)
    text = data.draw(st.one_of(st.just(CALLS[call_format]), noise))
    whole = read(new_parser(call_format), [text])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(new_parser(call_format), pieces) == whole
    assert read(new_parser(call_format), list(text)) == whole


def test_first_delta_of_a_call_has_its_name():
    parser = new_parser("hermes")
    assert parser.push('<tool_call>\n{"name": "get_weather"') == OutputDelta(
        tools=(ToolCallDelta(0, "id1", "get_weather"),)
    )
    assert parser.push(', "arguments": {"ci') == OutputDelta(tools=(ToolCallDelta(0, arguments='{"ci'),))
    assert parser.push('ty": "x"}') == OutputDelta(tools=(ToolCallDelta(0, arguments='ty": "x"}'),))
    assert parser.push("}\n</tool_call>") == OutputDelta()
    assert parser.push('<tool_call>{"name": "now"}</tool_call>') == OutputDelta(
        tools=(ToolCallDelta(1, "id2", "now", "{}"),)
    )


def test_text_is_not_held_back_longer_than_needed():
    parser = new_parser("hermes")
    assert parser.push("Hello <") == OutputDelta("Hello")  # the space may stand before a call
    assert parser.push("b>") == OutputDelta(" <b>")
    assert parser.push("<tool_cal") == OutputDelta()
    assert parser.push("m>") == OutputDelta("<tool_calm>")
