"""Calls of every family are read off an answer, however it is split."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.answer import Parts, ToolDelta
from server.chat.model import form_of
from server.chat.reasoning import Answer, ThinkReader
from server.chat.template.capabilities import template_variables
from server.chat.tool_calls.family import Offer
from support.fake_engine import tokenizer
from support.tools import ARGUMENTS, CALLS, FAMILY, TOOLS, VALUE, WEATHER, calls_of, counter, read, reader
from support.vocabularies import models_dir

BOTH = [("id1", "get_weather", VALUE), ("id2", "now", {})]


def test_every_family_is_tested():
    assert set(CALLS) == set(FAMILY)


@pytest.mark.parametrize("family", CALLS)
def test_calls(family):
    parser = reader(family)
    parts = read(parser, [CALLS[family]])
    assert calls_of(parts) == BOTH
    assert parts.content == parts.reasoning == ""
    assert parser.has_calls
    if family not in ("qwen-coder", "seed"):  # they write no JSON
        assert parts.tools[0].arguments == ARGUMENTS


MARKED = [name for name in CALLS if name not in ("llama3", "generic", "harmony")]


@pytest.mark.parametrize("family", MARKED)
def test_text_before_calls_is_content_without_the_space_between(family):
    parts = read(reader(family), [f"Let me see.\n\n{CALLS[family]}\n"])
    assert parts.content == "Let me see."
    assert calls_of(parts) == BOTH


@pytest.mark.parametrize("family", CALLS)
def test_only_the_first_call_where_more_are_not_wanted(family):
    parser = reader(family, parallel=False)
    assert calls_of(read(parser, [CALLS[family]])) == BOTH[:1]


@pytest.mark.parametrize("family", CALLS)
def test_a_call_of_a_tool_that_is_not_offered_is_text(family):
    parser = reader(family, (TOOLS[1],))
    parts = read(parser, [CALLS[family]])
    assert "get_weather" in parts.content
    assert all(call.name == "now" for call in parts.tools)


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize(
    "text", ["", "Hello there.", " \n", "a < b [1] {x} `y` \n", '{"a": 1}', "é🍕\n\n", "Action"]
)
def test_text_is_text(family, text):
    parser = reader(family)
    assert read(parser, list(text)) == Parts(text)
    assert not parser.has_calls


@pytest.mark.parametrize("family", CALLS)
def test_an_answer_that_is_cut_off(family):
    """What is known of a call is told; what is no call yet is text."""
    whole = CALLS[family]
    for end in range(len(whole)):
        parser = reader(family)
        content, _, tools = read(parser, [whole[:end]])
        assert whole[:end].startswith(content.rstrip()) or family == "harmony"
        assert bool(tools) == parser.has_calls
        assert not (content and tools)
        for call, (id, name, _) in zip(tools, BOTH, strict=False):
            assert (call.id, call.name) == (id, name)
    assert tools


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


@pytest.mark.parametrize("family", CALLS)
@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_any_split_is_the_same(family, data):
    """Of calls with anything in between, and of their fragments."""
    noise = st.lists(st.sampled_from([*NOISE, CALLS[family]]), max_size=8).map("".join)
    text = data.draw(st.one_of(st.just(CALLS[family]), noise))
    whole = read(reader(family), [text])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(reader(family), pieces) == whole
    assert read(reader(family), list(text)) == whole


def test_the_first_news_of_a_call_has_its_name():
    parser = reader("hermes")
    assert parser.push('<tool_call>\n{"name": "get_weather"') == Parts(
        tools=(ToolDelta(0, "id1", "get_weather"),)
    )
    assert parser.push(', "arguments": {"ci') == Parts(tools=(ToolDelta(0, arguments='{"ci'),))
    assert parser.push('ty": "x"}') == Parts(tools=(ToolDelta(0, arguments='ty": "x"}'),))
    assert parser.push("}\n</tool_call>") == Parts()
    assert parser.push('<tool_call>{"name": "now"}</tool_call>') == Parts(
        tools=(ToolDelta(1, "id2", "now", "{}"),)
    )


def test_text_is_not_held_back_longer_than_needed():
    parser = reader("hermes")
    assert parser.push("Hello <") == Parts("Hello")  # the space may stand before a call
    assert parser.push("b>") == Parts(" <b>")
    assert parser.push("<tool_cal") == Parts()
    assert parser.push("m>") == Parts("<tool_calm>")


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
    parts = read(reader("hermes"), [f"<tool_call>{text}</tool_call>"])
    assert calls_of(parts) == BOTH[:1]


def test_what_follows_a_call_is_content_again():
    parts = read(reader("hermes"), ['<tool_call>{"name": "now"}</tool_call>\nDone <tool_call> or not'])
    assert parts.content == "\nDone <tool_call> or not"
    assert calls_of(parts) == [("id1", "now", {})]


def test_both_forms_of_mistral():
    for family in ("mistral", "mistral-named"):
        for text in (
            CALLS["mistral"],
            CALLS["mistral-named"],
            CALLS["mistral-named"].replace("[ARGS]{}", "{}"),
        ):
            assert calls_of(read(reader(family), [text])) == BOTH
    assert (
        calls_of(read(reader("mistral-named"), ["[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}"]))[0][1] == "now"
    )


def test_python_tag_and_fence():
    call = f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}'
    assert calls_of(read(reader("llama3"), [f"<|python_tag|>{call}"])) == BOTH[:1]
    assert read(reader("llama3"), ["<|python_tag|>print(1)"]) == Parts("<|python_tag|>print(1)")
    assert calls_of(read(reader("generic"), [f"```json\n{CALLS['generic']}\n```"])) == BOTH


def test_responses_of_command_r_stand_between_marks():
    text = "<|START_RESPONSE|>It rains.<|END_RESPONSE|>"
    assert read(reader("command-r"), [text]) == Parts("It rains.")


def test_texts_in_tags_are_told_as_they_come():
    parser = reader("qwen-coder", (WEATHER,))
    parser.push("<tool_call>\n<function=get_weather>\n<parameter=city>\n")
    assert parser.push('two "lines"\n') == Parts(tools=(ToolDelta(0, arguments='two \\"lines\\"'),))
    assert parser.push("of\n</para") == Parts(tools=(ToolDelta(0, arguments="\\nof"),))
    assert parser.push("meter>\n</function>\n</tool_call>") == Parts(tools=(ToolDelta(0, arguments='"}'),))


def test_channels_of_harmony():
    text = (
        "<|channel|>analysis<|message|>I think.\n<|end|><|start|>assistant<|channel|>commentary<|message|>"
        "Wait.<|end|><|start|>assistant<|channel|>final<|message|>Well."
    )
    parser = reader("harmony")
    assert read(parser, list(text)) == Parts("Wait.Well.", "I think.")
    raw = FAMILY["harmony"].whole_reader(None, counter(), "<|start|>assistant", True)
    assert read(raw, [text]).content == "<|channel|>analysis<|message|>I think.\n<|end|>Wait.Well."
    begun = FAMILY["harmony"].whole_reader(
        None, counter(), "<|start|>assistant<|channel|>final<|message|>So ", False
    )
    assert read(begun, ["it is"]) == Parts("it is")
    to_role = " to=functions.now<|channel|>commentary json<|message|>{}"
    assert calls_of(read(reader("harmony"), [to_role])) == [("id1", "now", {})]


def test_reasoning_is_counted_as_such():
    parser = reader("harmony")
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
    from server.chat.messages import fit

    source = (models_dir() / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    form = form_of(source, {"bos_token": "<s>", "eos_token": "</s>"}, tokenizer())
    assert form.family.name == WRITTEN[name]
    several = form.traits.parallel_calls
    made = [("get_weather", VALUE), ("now", {})][: 2 if several else 1]
    calls = [
        {"id": f"call0000{i}", "type": "function", "function": {"name": tool, "arguments": json.dumps(value)}}
        for i, (tool, value) in enumerate(made)
    ]
    talk = [{"role": "user", "content": "Hi"}]
    answer = {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": calls}
    wire = [tool.wire() for tool in TOOLS]

    def prompt(messages, generate):
        fitted = form.family.fit(fit(messages, form.traits))
        extra = {**template_variables(source, wire), "enable_thinking": True}
        return form.template.render(fitted, tools=wire, add_generation_prompt=generate, extra=extra)

    before, whole = prompt(talk, True), prompt([*talk, answer], False)
    n = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    opened = form.marks is not None and whole[:n].rstrip().endswith(form.marks.start.strip())
    offer = Offer(TOOLS)
    parser = form.family.whole_reader(offer, counter(), whole[:n], False)
    if parser is None:
        parser = form.family.reader(offer, counter())
        if form.marks is not None:
            parser = Answer(ThinkReader(form.marks, opened), parser)
    parts = read(parser, [whole[n:]])
    assert [(tool, value) for _, tool, value in calls_of(parts)] == made
