"""Calls of every format are parsed, however the output is split."""

from __future__ import annotations

import json

import pytest

from server.chat.output import OutputDelta, ToolCallDelta
from support.api.tools import (
    ARGUMENTS,
    CALLS,
    FORMATS,
    TOOLS,
    VALUE,
    WEATHER,
    calls_of,
    counter,
    new_parser,
    read,
)
from support.quick import every

BOTH = [("id1", "get_weather", VALUE), ("id2", "now", {})]


def test_every_format_is_tested():
    assert set(CALLS) == set(FORMATS)


@pytest.mark.parametrize("call_format", CALLS)
def test_calls_of_every_format_are_parsed(call_format):
    parser = new_parser(call_format)
    parts = read(parser, [CALLS[call_format]])
    assert calls_of(parts) == BOTH
    assert parts.content == parts.reasoning == ""
    assert parser.n_calls
    if "\\u00fc" in CALLS[call_format]:  # it writes JSON
        assert parts.tools[0].arguments == ARGUMENTS


MARKED = [
    name
    for name in CALLS
    if name not in ("llama3", "generic", "harmony", "functionary-v3.2", "kimi-k3", "solar", "muse")
]


@pytest.mark.parametrize("call_format", MARKED)
def test_text_before_calls_is_content_without_the_space_between(call_format):
    parts = read(new_parser(call_format), [f"Let me see.\n\n{CALLS[call_format]}\n"])
    assert parts.content == "Let me see."
    assert calls_of(parts) == BOTH


UNFINISHED = [
    'use {"',
    'Say {"name": "',
    'x [{"',
    '{"name": "now',
    '{"name": "now", "arguments": {"a": "',
    '`{"',
]


# How text before a call is written, where not as it is.
ENCLOSED = {
    "harmony": "<|channel|>commentary<|message|>{}<|end|><|start|>assistant ",
    "functionary-v3.2": "all\n{} >>>",
    "kimi-k3": "<|open|>response<|sep|>{} <|close|>response<|sep|>",
    "solar": "<|content|>{}<|end|><|begin|>assistant",
    "muse": " to=user<|message|>{}<|eom|><|start|>assistant",
}


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize("text", UNFINISHED)
def test_text_with_unfinished_json_before_calls_does_not_swallow_them(call_format, text):
    output = ENCLOSED.get(call_format, "{} ").replace("{}", text) + CALLS[call_format]
    parts = read(new_parser(call_format), [output])
    if call_format not in ("llama3", "generic"):
        assert parts.content == text
        assert calls_of(parts) == BOTH
    elif not text.startswith("{"):  # calls without a marker are the whole output
        assert parts == OutputDelta(output)
    assert read(new_parser(call_format), list(output)) == parts


@pytest.mark.parametrize("call_format", CALLS)
def test_only_the_first_call_is_parsed_if_one_is_allowed(call_format):
    parser = new_parser(call_format, parallel=False)
    assert calls_of(read(parser, [CALLS[call_format]])) == BOTH[:1]


@pytest.mark.parametrize("call_format", CALLS)
def test_call_of_a_tool_not_offered_is_text(call_format):
    parser = new_parser(call_format, (TOOLS[1],))
    parts = read(parser, [CALLS[call_format]])
    assert "get_weather" in parts.content
    assert all(call.name == "now" for call in parts.tools)


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize(
    "text", ["", "Hello there.", " \n", "a < b [1] {x} `y` \n", '{"a": 1}', "é🍕\n\n", "Action"]
)
def test_text_without_calls_stays_text(call_format, text):
    parser = new_parser(call_format)
    assert read(parser, list(text)) == OutputDelta(text)
    assert not parser.n_calls


@pytest.mark.parametrize("call_format", every(3, CALLS))
def test_truncated_call_is_emitted_as_far_as_known(call_format):
    """What is known of a call is emitted; what is not a call yet is text."""
    whole = CALLS[call_format]
    for end in range(len(whole)):
        parser = new_parser(call_format)
        content, _, tools, *_ = read(parser, [whole[:end]])
        assert whole[:end].startswith(content.rstrip()) or call_format in ("harmony", "muse")
        assert bool(tools) == bool(parser.n_calls)
        assert not (content and tools)
        for call, (id, name, _) in zip(tools, BOTH, strict=False):
            assert (call.id, call.name) == (id, name)
    assert tools


@pytest.mark.parametrize(
    "text",
    [
        '{"arguments": ' + ARGUMENTS + ', "name": "get_weather"}',
        '{"id": 5, "name": "get_weather", "note": {"a": [1, "}"]}, "arguments": ' + ARGUMENTS + "}",
        '{"type": "function", "function": {"name": "get_weather", "arguments": ' + ARGUMENTS + "}}",
        '{"name": "get_weather", "parameters": ' + ARGUMENTS + "}",
        '{"name": "get_weather", "arguments": ' + json.dumps(ARGUMENTS) + "}",
        '[{"name": "get_weather", "arguments": ' + ARGUMENTS + "}]",
    ],
)
def test_variants_models_write_are_parsed(text):
    parts = read(new_parser("hermes"), [f"<tool_call>{text}</tool_call>"])
    assert calls_of(parts) == BOTH[:1]


def test_text_after_a_call_is_content():
    parts = read(new_parser("hermes"), ['<tool_call>{"name": "now"}</tool_call>\nDone <tool_call> or not'])
    assert parts.content == "\nDone <tool_call> or not"
    assert calls_of(parts) == [("id1", "now", {})]


def test_both_mistral_forms_are_parsed():
    for call_format in ("mistral", "mistral-named"):
        for text in (
            CALLS["mistral"],
            CALLS["mistral-named"],
            CALLS["mistral-named"].replace("[ARGS]{}", "{}"),
        ):
            assert calls_of(read(new_parser(call_format), [text])) == BOTH
    assert (
        calls_of(read(new_parser("mistral-named"), ["[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}"]))[0][1]
        == "now"
    )


def test_python_tag_and_json_fence_are_parsed():
    call = f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}'
    assert calls_of(read(new_parser("llama3"), [f"<|python_tag|>{call}"])) == BOTH[:1]
    assert read(new_parser("llama3"), ["<|python_tag|>print(1)"]) == OutputDelta("<|python_tag|>print(1)")
    assert calls_of(read(new_parser("generic"), [f"```json\n{CALLS['generic']}\n```"])) == BOTH


def test_command_r_response_markers_are_removed():
    text = "<|START_RESPONSE|>It rains.<|END_RESPONSE|>"
    assert read(new_parser("command-r"), [text]) == OutputDelta("It rains.")


def test_tagged_texts_are_streamed_as_they_come():
    parser = new_parser("qwen-coder", (WEATHER,))
    parser.push("<tool_call>\n<function=get_weather>\n<parameter=city>\n")
    assert parser.push('two "lines"\n') == OutputDelta(tools=(ToolCallDelta(0, arguments='two \\"lines\\"'),))
    assert parser.push("of\n</para") == OutputDelta(tools=(ToolCallDelta(0, arguments="\\nof"),))
    assert parser.push("meter>\n</function>\n</tool_call>") == OutputDelta(
        tools=(ToolCallDelta(0, arguments='"}'),)
    )


def test_harmony_channels_become_reasoning_and_content():
    text = (
        "<|channel|>analysis<|message|>I think.\n<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "Wait.<|end|><|start|>assistant<|channel|>final<|message|>Well."
    )
    parser = new_parser("harmony")
    assert read(parser, list(text)) == OutputDelta("Wait.Well.", "I think.")
    raw = FORMATS["harmony"].new_answer_parser(None, counter(), "<|start|>assistant", True)
    assert read(raw, [text]).content == "<|channel|>analysis<|message|>I think.\n<|end|>Wait.Well."
    started = FORMATS["harmony"].new_answer_parser(
        None, counter(), "<|start|>assistant<|channel|>final<|message|>So ", False
    )
    assert read(started, ["it is"]) == OutputDelta("it is")
    to_role = " to=functions.now<|channel|>commentary json<|message|>{}"
    assert calls_of(read(new_parser("harmony"), [to_role])) == [("id1", "now", {})]


def test_parser_in_the_analysis_channel_is_in_reasoning():
    parser = new_parser("harmony")
    parser.push("<|channel|>analysis<|message|>I")
    assert parser.reasoning
    parser.push(" think<|end|>")
    assert not parser.reasoning
