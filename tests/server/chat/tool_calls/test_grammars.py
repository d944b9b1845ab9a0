"""Grammars of every format: calls with valid arguments and nothing else, or any text until one begins."""

from __future__ import annotations

import re
from typing import Any

import llguidance
import pytest
from llguidance import LLMatcher

from engine.constraint.gbnf.lark import with_checked_schemas
from engine.types import Constraint
from server.chat.request import Tool
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from support.api.grammars import MARKER_IDS, matches, tokenizer
from support.api.tools import CALLS, FORMATS, TOOLS
from support.quick import every


def grammar(call_format: str, control: bool = False, tools: tuple[Tool, ...] = TOOLS, **options: Any) -> str:
    text = FORMATS[call_format].grammar(
        ToolOptions(tools, **options), GrammarTerminals(MARKER_IDS if control else {})
    )
    assert text is not None
    return with_checked_schemas(text).text


# As the grammars have them: no escapes without need, and JSON in tags.
WRITTEN = {
    name: text.replace("\\u00fc", "ü").replace("\nTrue\n", "\ntrue\n").replace(">True<", ">true<")
    for name, text in CALLS.items()
}
SEVERAL = [name for name in CALLS if name != "harmony"]  # one call a turn there
# Formats with tags or bare keys, in which some names of arguments cannot be written.
CANNOT_WRITE = ("qwen-coder", "seed", "glm", "hunyuan3", "minimax-m2", "minimax-m3", "minicpm", "muse")
CANNOT_WRITE += ("deepseek-v3.2", "deepseek-v4", "kimi-k3", "gemma", "lfm2")
SECTIONS = ("kimi-k3", "solar", "muse")  # in which only required calls are constrained
WHOLE = ("llama3", "generic")  # a call is the whole answer
# What begins the second call, and what ends all of them, by format.
SECOND = {
    "llama3": ("; ", ""),
    "generic": (', {"name": "now"', "]}"),
    "mistral": (', {"name": "now"', "]"),
    "granite": (', {"name": "now"', "]"),
    "apertus": (', {"now"', "]<|tools_suffix|>"),
    "command-r": (",\n    {", "\n]<|END_ACTION|>"),
    "command-r-plus": (",\n    {", "\n]```"),
    "deepseek-r1": ("\n<｜tool▁call▁begin｜>", "<｜tool▁calls▁end｜>"),  # noqa: RUF001
    "deepseek-v3.1": ("<｜tool▁call▁begin｜>", "<｜tool▁calls▁end｜>"),  # noqa: RUF001
    "deepseek-v3.2": ('<｜DSML｜invoke name="now', "</｜DSML｜function_calls>"),  # noqa: RUF001
    "deepseek-v4": ('<｜DSML｜invoke name="now', "</｜DSML｜tool_calls>"),  # noqa: RUF001
    "kimi": ("<|tool_call_begin|>functions.now", "<|tool_calls_section_end|>"),
    "kimi-k3": ('<|open|>call tool="now"', "<|close|>tools<|sep|>"),
    "gemma": ("<|tool_call>call:now", ""),
    "lfm2": (", now", "]<|tool_call_end|>"),
    "hermes": ("\n<tool_call>", ""),
    "qwen-coder": ("\n<tool_call>", ""),
    "seed": ("\n<seed:tool_call>", ""),
    "glm": ("\n<tool_call>", ""),
    "hunyuan3": ("<tool_call:opensource>now", "</tool_calls:opensource>"),
    "minimax-m2": ('<invoke name="now', "</minimax:tool_call>"),
    "minimax-m3": ('\n]<]minimax[>[<invoke name="now', "\n]<]minimax[>[</tool_call>"),
    "minicpm": ('\n<function name="now', ""),
    "mistral-named": ("[TOOL_CALLS]now", ""),
    "functionary": ("<function=now>", ""),
    "functionary-v3.2": (">>>now", ""),
    "solar": ("<|tool_call:begin|>b", "<|calls|>"),
    "muse": ("<|eom|>", ""),
}


def one(call_format: str) -> str:
    """Only the call of get_weather."""
    text = WRITTEN[call_format]
    if call_format == "harmony":
        return text.partition("<|call|>")[0]
    begin, end = SECOND[call_format]
    assert text.endswith(end)
    return text[: text.rindex(begin)] + end


def wrong_type(call: str) -> str:
    """The call with text in the place of a number."""
    return re.sub(r"(days.*?)2", r'\1"two"', call, count=1, flags=re.DOTALL)


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("call_format", every(3, SEVERAL))
def test_grammar_of_required_calls_allows_only_calls(call_format, control):
    several, single = (
        grammar(call_format, control, required=True),
        grammar(call_format, control, required=True, parallel=False),
    )
    both, alone = WRITTEN[call_format], one(call_format)
    assert matches(several, both, control) == (True, True)
    assert matches(several, alone, control) == (True, True)
    assert matches(single, alone, control) == (True, True)
    assert matches(single, both, control) != (True, True)
    for wrong in ("Hello", wrong_type(alone), alone.replace("get_weather", "other"), alone[:-1]):
        assert matches(several, wrong, control) != (True, True), wrong


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("call_format", every(3, [name for name in SEVERAL if name not in SECTIONS]))
def test_grammar_of_optional_calls_allows_text_and_valid_calls(call_format, control):
    before = "all\n" if call_format == "functionary-v3.2" else ""
    text, alone = grammar(call_format, control), one(call_format)
    assert matches(text, f"{before}Hello <b> {{}} [1] there\n", control) == (True, True)
    assert matches(text, before, control)[1]
    assert matches(text, WRITTEN[call_format], control) == (True, True)
    wrong = wrong_type(alone)
    assert matches(text, wrong, control) != (True, True)
    if call_format in WHOLE:
        assert matches(text, '{"other": 1}', control) == (True, True)
    else:
        between = ">>>" if before else "\n"
        assert matches(text, f"{before}Let me see.{between}{alone}", control) == (True, True)
        assert matches(text, f"{before}Let me see.{between}{wrong}", control) != (True, True)
        assert matches(text, f"{alone} and more text", control) != (True, True)


def test_text_may_hold_other_tokens_of_the_format():
    text = grammar("command-r", control=True)
    assert matches(text, "<|START_RESPONSE|>It rains.<|END_RESPONSE|>", True) == (True, True)
    assert matches(text, "<|START_RESPONSE|>Well.<|END_RESPONSE|>" + WRITTEN["command-r"], True) == (
        True,
        True,
    )


@pytest.mark.parametrize("call_format", SEVERAL)
def test_text_markers_match_in_any_tokenization(call_format):
    assert matches(grammar(call_format, required=True), WRITTEN[call_format], False, pieces=False) == (
        True,
        True,
    )
    if call_format not in SECTIONS:
        assert matches(grammar(call_format), WRITTEN[call_format], False, pieces=False) == (True, True)


@pytest.mark.parametrize("call_format", SEVERAL)
def test_constrained_answer_is_allowed_instead_of_a_call(call_format):
    schema = '{"type": "object", "properties": {"name": {"type": "string"}}}'
    text = grammar(call_format, answer=Constraint("json_schema", schema))
    before = "all\n" if call_format == "functionary-v3.2" else ""
    assert matches(text, before + '{"name": "get_wool"}', False) == (True, True)
    # Where calls are JSON as well, one a turn.
    call = one(call_format) if call_format in WHOLE else WRITTEN[call_format]
    assert matches(text, call, False) == (True, True)
    assert matches(text, "Hello", False) != (True, True)


def test_indistinguishable_answers_and_calls_are_refused():
    schema = '{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}'
    for call_format in ("llama3", "generic"):
        with pytest.raises(UnsupportedSchema):
            grammar(call_format, answer=Constraint("json_schema", schema))


def test_every_kind_of_answer_constraint_is_combined_with_calls():
    for constraint, good, bad in (
        (Constraint("json_object"), '{"a": [1]}', "5"),
        (Constraint("regex", "a/b+"), "a/bb", "ab"),
        (Constraint("choice", '["yes", "no \\"x\\""]'), 'no "x"', "y"),
    ):
        text = grammar("hermes", answer=constraint)
        assert matches(text, good, False) == (True, True)
        assert matches(text, bad, False) != (True, True)


@pytest.mark.parametrize("control", [True, False])
def test_harmony_grammar_requires_the_right_channels(control):
    analysis = "<|channel|>analysis<|message|>I think <|x|>.<|end|>"
    again, final = "<|start|>assistant", "<|channel|>final<|message|>"
    call = one("harmony")
    required = grammar("harmony", control, required=True)
    for before in ("", analysis + again, again):
        assert matches(required, before + call, control) == (True, True), before
    for wrong in (analysis, final + "x", analysis + again + final + "x", wrong_type(call)):
        assert matches(required, wrong, control) != (True, True), wrong
    terminals = GrammarTerminals(MARKER_IDS if control else {})
    framed = FORMATS["harmony"].answer_grammar("/[0-9]+/", terminals)
    assert framed is not None
    assert matches(framed, f"{analysis}{again}{final}42", control) == (True, True)
    assert matches(framed, "42", control) != (True, True)
    both = grammar("harmony", control, answer=Constraint("regex", "[0-9]+"))
    assert matches(both, final + "42", control) == matches(both, call, control) == (True, True)
    assert FORMATS["harmony"].grammar(ToolOptions(TOOLS), terminals) is None


def tool(properties: dict[str, Any], **more: Any) -> Tool:
    return Tool("f", None, {"type": "object", "properties": properties, **more}, None, "tools[0]")


def tagged(*arguments: tuple[str, str]) -> str:
    inside = "".join(f"\n<parameter={name}>\n{value}\n</parameter>" for name, value in arguments)
    return f"<tool_call>\n<function=f>{inside}\n</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, 'any "text"\n<b> of </b> lines', None),
        ({"type": "string", "enum": ["a", "b/c"]}, "b/c", "c"),
        ({"type": "string", "const": "a"}, "a", "b"),
        ({"type": "string", "maxLength": 3}, "abc", "abcd"),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "ab", "a"),
        ({"type": "integer", "minimum": 3}, "4", "2"),
        ({"type": "array", "items": {"$ref": "#/$defs/n"}}, "[1, 2]", '["a"]'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a", None),
        ({"type": ["string", "null"], "description": "x"}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, '"a"', "a"),
        ({"enum": ["a", "b"]}, "a", "c"),
        ({}, '{"a": 1}', "a"),
    ],
)
def test_tagged_arguments_match_their_schema(schema, good, bad):
    text = grammar(
        "qwen-coder", tools=(tool({"x": schema}, **{"$defs": {"n": {"type": "integer"}}}),), required=True
    )
    assert matches(text, tagged(("x", good)), False) == (True, True)
    assert matches(text, tagged(), False) == (True, True)  # it is not required
    if bad is not None:
        assert matches(text, tagged(("x", bad)), False) != (True, True)


def test_required_tagged_arguments_come_in_order():
    text = grammar(
        "qwen-coder", tools=(tool({"x": {}, "y": {}, "z": {}}, required=["x", "z"]),), required=True
    )
    assert matches(text, tagged(("x", "1"), ("y", "2"), ("z", "3")), False) == (True, True)
    assert matches(text, tagged(("x", "1"), ("z", "3")), False) == (True, True)
    assert matches(text, tagged(("x", "1"), ("y", "3")), False) != (True, True)
    assert matches(text, tagged(("x", "1"), ("z", "3"), ("a", "3")), False) != (True, True)


@pytest.mark.parametrize(
    "bad",
    [
        tool({"x": {"type": "string", "pattern": "a"}}),
        tool({"x": {"type": "string", "enum": [1]}}),
        tool({"x>": {}}),
        tool({"x": {}}, required=["y"]),
        tool({"x": {}}, minProperties=1),
        tool({"x": {}}, anyOf=[{}]),
    ],
)
def test_schema_that_tags_cannot_express_is_refused(bad):
    with pytest.raises(UnsupportedSchema):
        grammar("qwen-coder", tools=(bad,), required=True)


def test_properties_that_a_schema_does_not_list_are_left_out():
    text = grammar("hermes", tools=(tool({"a": {"type": "integer"}}),), required=True)
    call = '<tool_call>\n{{"name": "f", "arguments": {}}}\n</tool_call>'
    assert matches(text, call.format('{"a": 1}'), False) == (True, True)
    assert matches(text, call.format("{}"), False) == (True, True)
    assert matches(text, call.format('{"b": 1}'), False) != (True, True)


def test_odd_names_and_texts_give_a_valid_grammar():
    odd = Tool("a.b-c", None, {"type": "object", "properties": {'"x\\\n': {"enum": ['"\\']}}}, None, "t")
    for call_format in SEVERAL:
        if call_format not in CANNOT_WRITE:
            error = LLMatcher.validate_grammar(
                grammar(call_format, tools=(odd,), required=True), tokenizer(False)
            )
            assert not error, error
    assert llguidance.__name__
