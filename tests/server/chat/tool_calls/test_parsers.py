"""Calls of every format are parsed, however the output is split."""

from __future__ import annotations

import json

import pytest

from server.chat.chat_format import load_chat_format
from server.chat.output import OutputDelta, ToolCallDelta
from server.chat.reasoning import ReasoningParser, ReasoningThenCallsParser
from server.chat.template.capabilities import template_variables
from server.chat.tool_calls.tool_call_format import ToolOptions
from support.api.templates import SANDBOX, published_source
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
from support.fakes.engine import tokenizer

BOTH = [("id1", "get_weather", VALUE), ("id2", "now", {})]


def test_every_format_is_tested():
    assert set(CALLS) == set(FORMATS)


@pytest.mark.parametrize("call_format", CALLS)
def test_calls(call_format):
    parser = new_parser(call_format)
    parts = read(parser, [CALLS[call_format]])
    assert calls_of(parts) == BOTH
    assert parts.content == parts.reasoning == ""
    assert parser.has_calls
    if call_format not in ("qwen-coder", "seed"):  # they write no JSON
        assert parts.tools[0].arguments == ARGUMENTS


MARKED = [name for name in CALLS if name not in ("llama3", "generic", "harmony")]


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


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize("text", UNFINISHED)
def test_text_with_unfinished_json_before_calls_does_not_swallow_them(call_format, text):
    before = f"<|channel|>commentary<|message|>{text}<|end|><|start|>assistant"
    output = f"{before if call_format == 'harmony' else text} {CALLS[call_format]}"
    parts = read(new_parser(call_format), [output])
    if call_format in MARKED or call_format == "harmony":
        assert parts.content == text
        assert calls_of(parts) == BOTH
    elif not text.startswith("{"):  # calls without a marker are the whole output
        assert parts == OutputDelta(output)
    assert read(new_parser(call_format), list(output)) == parts


@pytest.mark.parametrize("call_format", CALLS)
def test_only_the_first_call_where_more_are_not_allowed(call_format):
    parser = new_parser(call_format, parallel=False)
    assert calls_of(read(parser, [CALLS[call_format]])) == BOTH[:1]


@pytest.mark.parametrize("call_format", CALLS)
def test_a_call_of_a_tool_that_is_not_offered_is_text(call_format):
    parser = new_parser(call_format, (TOOLS[1],))
    parts = read(parser, [CALLS[call_format]])
    assert "get_weather" in parts.content
    assert all(call.name == "now" for call in parts.tools)


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize(
    "text", ["", "Hello there.", " \n", "a < b [1] {x} `y` \n", '{"a": 1}', "é🍕\n\n", "Action"]
)
def test_text_is_text(call_format, text):
    parser = new_parser(call_format)
    assert read(parser, list(text)) == OutputDelta(text)
    assert not parser.has_calls


@pytest.mark.parametrize("call_format", CALLS)
def test_an_answer_that_is_cut_off(call_format):
    """What is known of a call is emitted; what is not a call yet is text."""
    whole = CALLS[call_format]
    for end in range(len(whole)):
        parser = new_parser(call_format)
        content, _, tools, *_ = read(parser, [whole[:end]])
        assert whole[:end].startswith(content.rstrip()) or call_format == "harmony"
        assert bool(tools) == parser.has_calls
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
def test_what_models_write_for_the_form_they_were_shown(text):
    parts = read(new_parser("hermes"), [f"<tool_call>{text}</tool_call>"])
    assert calls_of(parts) == BOTH[:1]


def test_what_follows_a_call_is_content_again():
    parts = read(new_parser("hermes"), ['<tool_call>{"name": "now"}</tool_call>\nDone <tool_call> or not'])
    assert parts.content == "\nDone <tool_call> or not"
    assert calls_of(parts) == [("id1", "now", {})]


def test_both_forms_of_mistral():
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


def test_python_tag_and_fence():
    call = f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}'
    assert calls_of(read(new_parser("llama3"), [f"<|python_tag|>{call}"])) == BOTH[:1]
    assert read(new_parser("llama3"), ["<|python_tag|>print(1)"]) == OutputDelta("<|python_tag|>print(1)")
    assert calls_of(read(new_parser("generic"), [f"```json\n{CALLS['generic']}\n```"])) == BOTH


def test_responses_of_command_r_stand_between_marks():
    text = "<|START_RESPONSE|>It rains.<|END_RESPONSE|>"
    assert read(new_parser("command-r"), [text]) == OutputDelta("It rains.")


def test_texts_in_tags_are_reported_as_they_come():
    parser = new_parser("qwen-coder", (WEATHER,))
    parser.push("<tool_call>\n<function=get_weather>\n<parameter=city>\n")
    assert parser.push('two "lines"\n') == OutputDelta(tools=(ToolCallDelta(0, arguments='two \\"lines\\"'),))
    assert parser.push("of\n</para") == OutputDelta(tools=(ToolCallDelta(0, arguments="\\nof"),))
    assert parser.push("meter>\n</function>\n</tool_call>") == OutputDelta(
        tools=(ToolCallDelta(0, arguments='"}'),)
    )


def test_channels_of_harmony():
    text = (
        "<|channel|>analysis<|message|>I think.\n<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "Wait.<|end|><|start|>assistant<|channel|>final<|message|>Well."
    )
    parser = new_parser("harmony")
    assert read(parser, list(text)) == OutputDelta("Wait.Well.", "I think.")
    raw = FORMATS["harmony"].new_answer_parser(None, counter(), "<|start|>assistant", True)
    assert read(raw, [text]).content == "<|channel|>analysis<|message|>I think.\n<|end|>Wait.Well."
    begun = FORMATS["harmony"].new_answer_parser(
        None, counter(), "<|start|>assistant<|channel|>final<|message|>So ", False
    )
    assert read(begun, ["it is"]) == OutputDelta("it is")
    to_role = " to=functions.now<|channel|>commentary json<|message|>{}"
    assert calls_of(read(new_parser("harmony"), [to_role])) == [("id1", "now", {})]


def test_reasoning_is_counted_as_such():
    parser = new_parser("harmony")
    parser.push("<|channel|>analysis<|message|>I")
    assert parser.reasoning
    parser.push(" think<|end|>")
    assert not parser.reasoning


# Whose calls the template of the same name writes, so that they can be read again.
WRITTEN = {
    "CohereForAI-c4ai-command-r-plus-tool_use": "command-r-plus",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command-r",
    "Cohere2MoE": "command-r",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral-named",
    "mistralai-Ministral-3-14B-Reasoning-2512": "mistral-named",
    "unsloth-mistral-Devstral-Small-2507": "mistral-named",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "ibm-granite-granite-4.0": "hermes",
    "Bielik-11B-v3.0-Instruct": "hermes",
    "Qwen3-Coder": "qwen-coder",
    "Qwen3.5-4B": "qwen-coder",
    "StepFun3.5-Flash": "qwen-coder",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek-r1",
    "deepseek-ai-DeepSeek-V3.1": "deepseek-v3.1",
    "meta-llama-Llama-3.1-8B-Instruct": "llama3",
    "meta-llama-Llama-3.2-3B-Instruct": "llama3",
    "meta-llama-Llama-3.3-70B-Instruct": "llama3",
    "meetkai-functionary-medium-v3.1": "functionary",
    "openai-gpt-oss-120b": "harmony",
    "Apriel-1.6-15b-Thinker-fixed": "derived",
    "unsloth-Apriel-1.5": "derived",
    "MiniMax-M1": "derived",
    "GigaChat3.1-10B-A1.8B": "derived",
    "fireworks-ai-llama-3-firefunction-v2": "derived",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_calls_as_the_templates_write_them(name):
    from server.chat.messages import adapt_messages

    source = published_source(name)
    chat_format = load_chat_format(source, tokenizer(), SANDBOX)
    assert chat_format.call_format.name == WRITTEN[name]
    several = chat_format.capabilities.parallel_calls
    made = [("get_weather", VALUE), ("now", {})][: 2 if several else 1]
    calls = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": tool, "arguments": json.dumps(value)}}
        for i, (tool, value) in enumerate(made)
    ]
    talk = [{"role": "user", "content": "Hi"}]
    answer = {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls}
    wire = [tool.wire() for tool in TOOLS]

    def prompt(messages, generate):
        fitted = chat_format.call_format.adapt_messages(adapt_messages(messages, chat_format.capabilities))
        extra = {**template_variables(source, wire), "enable_thinking": True}
        return chat_format.template.render(fitted, tools=wire, add_generation_prompt=generate, extra=extra)

    before, whole = prompt(talk, True), prompt([*talk, answer], False)
    n = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    opened = chat_format.markers is not None and whole[:n].rstrip().endswith(
        chat_format.markers.start.strip()
    )
    options = ToolOptions(TOOLS)
    parser = chat_format.call_format.new_answer_parser(options, counter(), whole[:n], False)
    if parser is None:
        parser = chat_format.call_format.new_parser(options, counter())
        if chat_format.markers is not None:
            parser = ReasoningThenCallsParser(ReasoningParser(chat_format.markers, opened), parser)
    parts = read(parser, [whole[n:]])
    assert [(tool, value) for _, tool, value in calls_of(parts)] == made
