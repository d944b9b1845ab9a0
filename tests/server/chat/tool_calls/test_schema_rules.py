"""Values of a schema in the syntaxes of LFM2, Gemma 4 and MiniMax M3, and schemas that no syntax can read."""

from __future__ import annotations

from typing import Any

import pytest

from engine.constraint.gbnf.lark import with_checked_schemas
from server.chat.request import Tool
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from support.api.grammars import MARKER_IDS, matches
from support.api.tools import FORMATS

NS = "]<]minimax[>["
CALLS = {
    "lfm2": "<|tool_call_start|>[f(x={})]<|tool_call_end|>",
    "gemma": "<|tool_call>call:f{{x:{}}}<tool_call|>",
    "minimax-m3": f'{NS}<tool_call>\n{NS}<invoke name="f">{NS}<x>{{}}{NS}</x>{NS}</invoke>\n{NS}</tool_call>',
}
TAGGED = ("qwen-coder", "seed", "glm", "hunyuan3", "minimax-m2", "minicpm", "muse", "deepseek-v4", "kimi-k3")
EMPTY = {"type": "string", "maxLength": 0}
NUMBERS = {"type": "object", "additionalProperties": {"type": "integer"}}


def grammar(call_format: str, schema: Any, control: bool = False, **more: Any) -> str:
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"], **more}
    options = ToolOptions((Tool("f", None, parameters, None, "tools[0]"),), required=True)
    text = FORMATS[call_format].grammar(options, GrammarTerminals(MARKER_IDS if control else {}))
    assert text is not None
    return with_checked_schemas(text).text


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize(
    ("call_format", "schema", "good", "bad"),
    [
        ("lfm2", EMPTY, "''", "'a'"),
        ("gemma", EMPTY, '<|"|><|"|>', '<|"|>a<|"|>'),
        ("minimax-m3", EMPTY, "", "a"),
        ("lfm2", NUMBERS, "{'a': 1, 'b': 2}", "{'a': 'b'}"),
        ("lfm2", NUMBERS, "{}", "1"),
        ("gemma", NUMBERS, "{a:1,b:2}", '{a:<|"|>b<|"|>}'),
        ("lfm2", {"type": "object"}, "{'a': [1, {'b': None}]}", "1"),
        ("gemma", {"type": "object"}, "{a:[1,{b:null}]}", "1"),
    ],
)
def test_value_matches_if_it_is_valid_for_the_schema(call_format, schema, good, bad, control):
    text = grammar(call_format, schema, control)
    assert matches(text, CALLS[call_format].format(good), control) == (True, True)
    assert matches(text, CALLS[call_format].format(bad), control) != (True, True)


def tagged(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """An object with a property that tells it from others."""
    properties = {"kind": {"const": kind}, name: {"type": "integer"}}
    return {"type": "object", "properties": properties, "required": ["kind", name], **more}


NUMBER = {"type": "number"}
ANIMALS = {
    "lfm2": "{'kind': 'KIND', 'NAME': 1}",
    "gemma": '{kind:<|"|>KIND<|"|>,NAME:1}',
    "minimax-m3": f"{NS}<kind>KIND{NS}</kind>{NS}<NAME>1{NS}</NAME>",
}


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize(
    "branches",
    [
        [tagged("cat", "lives"), tagged("dog", "years")],
        [tagged("cat", "lives"), {"$ref": "#/$defs/dog"}],
        [{"anyOf": [tagged("cat", "lives"), tagged("owl", "eyes")]}, tagged("dog", "years"), NUMBER],
    ],
)
def test_one_of_branches_that_exclude_each_other_is_exact(call_format, branches):
    text = grammar(call_format, {"oneOf": branches}, **{"$defs": {"dog": tagged("dog", "years")}})
    for kind, name, valid in (("cat", "lives", True), ("dog", "years", True), ("dog", "lives", False)):
        value = ANIMALS[call_format].replace("KIND", kind).replace("NAME", name)
        assert (matches(text, CALLS[call_format].format(value), False) == (True, True)) is valid


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "string"}],
        [{"const": "a"}, {"enum": ["b", "c"]}, {"type": ["integer", "boolean"]}],
        [{"type": "integer", "maximum": 4}, {"type": "integer", "minimum": 5}],
        # Neither is written with a property that only the other requires.
        [{"type": "object", "properties": {n: {"type": "integer"}}, "required": [n]} for n in "ab"],
    ],
)
def test_one_of_is_accepted_if_no_value_is_valid_twice(call_format, branches):
    grammar(call_format, {"oneOf": branches})


@pytest.mark.parametrize("call_format", CALLS)
@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"enum": ["a", "b"]}, {"const": "b"}],
        [{"type": "string"}, {"const": "a"}],
        [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 5}],
        [tagged("cat", "lives"), tagged("cat", "lives")],
        [{"type": "object", "properties": {n: {"type": "integer"}}} for n in "ab"],
        [{}, {"type": "string"}],
        [{"const": i} for i in range(65)],
    ],
)
def test_one_of_branches_that_may_match_the_same_value_is_refused(call_format, branches):
    with pytest.raises(UnsupportedSchema, match="a oneOf of which more than one branch may match; use anyOf"):
        grammar(call_format, {"oneOf": branches})
    grammar(call_format, {"anyOf": branches})


@pytest.mark.parametrize("call_format", [*CALLS, *TAGGED])
@pytest.mark.parametrize(
    "schema",
    [
        {"enum": 5},
        {"type": "string", "enum": 5},
        {"anyOf": 5},
        {"type": ["string", "null"], "anyOf": 5},
        {"type": "object", "properties": 5},
        {"type": "object", "required": 5},
        {"type": "object", "properties": {"a": {}}, "required": [["a"]]},
        {"type": "array", "items": {"oneOf": "a"}},
        {"type": "array", "minItems": "1"},
        {"type": 5},
        {"$ref": []},
    ],
)
def test_schema_with_keywords_of_a_wrong_type_is_refused(call_format, schema):
    with pytest.raises(UnsupportedSchema, match="wrong type"):
        grammar(call_format, schema)


@pytest.mark.parametrize("call_format", CALLS)
def test_schema_that_refers_to_one_with_a_fault_is_refused(call_format):
    with pytest.raises(UnsupportedSchema, match="wrong type"):
        grammar(call_format, {"$ref": "#/$defs/a/default"}, **{"$defs": {"a": {"default": {"enum": 5}}}})


@pytest.mark.parametrize("call_format", CALLS)
def test_property_that_is_required_and_not_described_is_refused(call_format):
    with pytest.raises(UnsupportedSchema, match="requires 'y'"):
        grammar(call_format, {"type": "object", "required": ["y"]})


def test_map_that_nested_tags_cannot_express_is_refused():
    with pytest.raises(UnsupportedSchema, match="additionalProperties"):
        grammar("minimax-m3", NUMBERS)


@pytest.mark.parametrize("call_format", [*CALLS, *TAGGED])
def test_schema_that_is_nested_too_deeply_is_refused(call_format):
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UnsupportedSchema, match="nested too deeply"):
        grammar(call_format, schema)


@pytest.mark.parametrize(
    ("call_format", "n_tools", "n_arguments"),
    [*((name, 1, 100) for name in (*TAGGED, "minimax-m3")), *((name, 50, 4) for name in TAGGED)],
)
def test_tools_that_repeat_a_large_definition_are_refused(call_format, n_tools, n_arguments):
    parts = {"b" * 1000 + str(i): {"type": "string"} for i in range(30)}
    parameters = {
        "type": "object",
        "properties": {f"a{i}": {"$ref": "#/$defs/d"} for i in range(n_arguments)},
        "$defs": {"d": {"type": "object", "properties": parts}},
    }
    tools = tuple(Tool(f"f{i}", None, parameters, None, "tools[0]") for i in range(n_tools))
    with pytest.raises(UnsupportedSchema, match="too large"):
        FORMATS[call_format].grammar(ToolOptions(tools, required=True), GrammarTerminals({}))
