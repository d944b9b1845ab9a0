"""Grammars of every format: calls with valid arguments and nothing else, or any text until one begins."""

from __future__ import annotations

from functools import cache
from typing import Any

import llguidance
import pytest
from llguidance import LLMatcher, LLTokenizer

from engine.constraint.gbnf.lark import with_checked_schemas
from engine.types import Constraint
from server.chat.tool_calls import Tool, make_tool
from server.chat.tool_calls.grammar import GrammarTerminals
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from support.api.tools import CALLS, FORMATS, TOOLS

MARKERS = sorted(
    {marker for call_format in FORMATS.values() for marker in call_format.markers if len(marker) > 1}
)
FIRST = 257  # the id of the first marker


class Vocabulary:
    """Bytes, an end, and the markers, which are control tokens or text in one piece."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    eos_token_id = 256

    def __init__(self, control: bool) -> None:
        self.tokens = [*(bytes((i,)) for i in range(256)), b"<eos>", *(marker.encode() for marker in MARKERS)]
        self.special_token_ids = [256, *(range(FIRST, len(self.tokens)) if control else ())]


@cache
def tokenizer(control: bool) -> LLTokenizer:
    vocabulary: Any = Vocabulary(control)
    return LLTokenizer(vocabulary, n_vocab=len(vocabulary.tokens))


MARKER_IDS = {marker: FIRST + i for i, marker in enumerate(MARKERS)}


def encode(text: str, pieces: bool) -> list[int]:
    """Token ids: the markers as one token each, or all of it as bytes."""
    ids: list[int] = []
    while text:
        marker = next(
            (marker for marker in sorted(MARKERS, key=len, reverse=True) if text.startswith(marker)), None
        )
        if marker is not None and pieces:
            ids.append(MARKER_IDS[marker])
            text = text[len(marker) :]
        else:
            ids += text[0].encode()
            text = text[1:]
    return ids


def matches(grammar: str, text: str, control: bool, pieces: bool = True) -> tuple[bool, bool]:
    """Whether the grammar takes the text, and whether it may end there."""
    matcher = LLMatcher(tokenizer(control), grammar + '\n%llguidance {"no_forcing": true}\n', log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = encode(text, pieces)
    taken = matcher.try_consume_tokens(ids)
    return taken == len(ids), matcher.is_accepting()


def grammar(call_format: str, control: bool = False, tools: tuple[Tool, ...] = TOOLS, **options: Any) -> str:
    text = FORMATS[call_format].grammar(
        ToolOptions(tools, **options), GrammarTerminals(MARKER_IDS if control else {})
    )
    assert text is not None
    return with_checked_schemas(text).text


# As the grammars have them: no escapes without need, and JSON in tags.
WRITTEN = {name: text.replace("\\u00fc", "ü").replace("\nTrue\n", "\ntrue\n") for name, text in CALLS.items()}
SEVERAL = [name for name in CALLS if name != "harmony"]  # one call a turn there


def one(call_format: str) -> str:
    """Only the call of get_weather."""
    text = WRITTEN[call_format]
    if call_format == "harmony":
        return text.partition("<|call|>")[0]
    if call_format in ("mistral", "command-r", "command-r-plus", "generic"):
        begin = (
            text.index(', {"name": "now"')
            if call_format in ("mistral", "generic")
            else text.index(",\n    {")
        )
        end = text.rindex("}]") + 1 if call_format in ("mistral", "generic") else text.rindex("\n]")
        return text[:begin] + text[end:]
    if call_format.startswith("deepseek"):
        begin = text.rindex("<｜tool▁call▁begin｜>")  # noqa: RUF001
        end = text.rindex("<｜tool▁calls▁end｜>")  # noqa: RUF001
        return text[:begin].removesuffix("\n") + text[end:]
    between = {"llama3": "; ", "hermes": "\n<tool_call>", "qwen-coder": "\n<tool_call>"}
    between |= {
        "seed": "\n<seed:tool_call>",
        "mistral-named": "[TOOL_CALLS]now",
        "functionary": "<function=now>",
    }
    return text[: text.rindex(between[call_format])]


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("call_format", SEVERAL)
def test_required_calls(call_format, control):
    several, single = (
        grammar(call_format, control, required=True),
        grammar(call_format, control, required=True, parallel=False),
    )
    both, alone = WRITTEN[call_format], one(call_format)
    assert matches(several, both, control) == (True, True)
    assert matches(several, alone, control) == (True, True)
    assert matches(single, alone, control) == (True, True)
    assert matches(single, both, control) != (True, True)
    for wrong in ("Hello", alone.replace("2", '"two"', 1), alone.replace("get_weather", "other"), alone[:-1]):
        assert matches(several, wrong, control) != (True, True), wrong


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("call_format", SEVERAL)
def test_calls_as_the_model_sees_fit(call_format, control):
    text, alone = grammar(call_format, control), one(call_format)
    assert matches(text, "Hello <b> {} [1] there\n", control) == (True, True)
    assert matches(text, "", control)[1]
    assert matches(text, WRITTEN[call_format], control) == (True, True)
    wrong = alone.replace("2", '"two"', 1)
    assert matches(text, wrong, control) != (True, True)
    if call_format in ("llama3", "generic"):  # a call is the whole answer
        assert matches(text, '{"other": 1}', control) == (True, True)
    else:
        assert matches(text, f"Let me see.\n{alone}", control) == (True, True)
        assert matches(text, f"Let me see.\n{wrong}", control) != (True, True)
        assert matches(text, f"{alone} and more text", control) != (True, True)


def test_text_may_hold_other_tokens_of_the_format():
    text = grammar("command-r", control=True)
    assert matches(text, "<|START_RESPONSE|>It rains.<|END_RESPONSE|>", True) == (True, True)
    assert matches(text, "<|START_RESPONSE|>Well.<|END_RESPONSE|>" + WRITTEN["command-r"], True) == (
        True,
        True,
    )


@pytest.mark.parametrize("call_format", SEVERAL)
def test_markers_that_are_text_may_come_in_any_pieces(call_format):
    assert matches(grammar(call_format, required=True), WRITTEN[call_format], False, pieces=False) == (
        True,
        True,
    )
    assert matches(grammar(call_format), WRITTEN[call_format], False, pieces=False) == (True, True)


@pytest.mark.parametrize("call_format", SEVERAL)
def test_an_answer_of_another_form_where_no_tool_is_called(call_format):
    schema = '{"type": "object", "properties": {"name": {"type": "string"}}}'
    text = grammar(call_format, answer=Constraint("json_schema", schema))
    assert matches(text, '{"name": "get_wool"}', False) == (True, True)
    # Where calls are JSON as well, one a turn.
    call = one(call_format) if call_format in ("llama3", "generic") else WRITTEN[call_format]
    assert matches(text, call, False) == (True, True)
    assert matches(text, "Hello", False) != (True, True)


def test_answers_and_calls_that_cannot_be_distinguished():
    schema = '{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}'
    for call_format in ("llama3", "generic"):
        with pytest.raises(UnsupportedSchema):
            grammar(call_format, answer=Constraint("json_schema", schema))


def test_other_forms_of_answers():
    for constraint, good, bad in (
        (Constraint("json_object"), '{"a": [1]}', "5"),
        (Constraint("regex", "a/b+"), "a/bb", "ab"),
        (Constraint("choice", '["yes", "no \\"x\\""]'), 'no "x"', "y"),
    ):
        text = grammar("hermes", answer=constraint)
        assert matches(text, good, False) == (True, True)
        assert matches(text, bad, False) != (True, True)


@pytest.mark.parametrize("control", [True, False])
def test_channels(control):
    analysis = "<|channel|>analysis<|message|>I think <|x|>.<|end|>"
    again, final = "<|start|>assistant", "<|channel|>final<|message|>"
    call = one("harmony")
    required = grammar("harmony", control, required=True)
    for before in ("", analysis + again, again):
        assert matches(required, before + call, control) == (True, True), before
    for wrong in (analysis, final + "x", analysis + again + final + "x", call.replace("2", '"two"', 1)):
        assert matches(required, wrong, control) != (True, True), wrong
    terminals = GrammarTerminals(MARKER_IDS if control else {})
    framed = FORMATS["harmony"].answer_grammar("/[0-9]+/", terminals)
    assert framed is not None
    assert matches(framed, f"{analysis}{again}{final}42", control) == (True, True)
    assert matches(framed, "42", control) != (True, True)
    both = grammar("harmony", control, answer=Constraint("regex", "[0-9]+"))
    assert matches(both, final + "42", control) == matches(both, call, control) == (True, True)
    assert FORMATS["harmony"].grammar(ToolOptions(TOOLS), terminals) is None
    assert FORMATS["hermes"].answer_grammar("/x/", terminals) is None


def tool(properties: dict[str, Any], **more: Any) -> Tool:
    return make_tool("f", None, {"type": "object", "properties": properties, **more}, None, "tools[0]")


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
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, '"a"', "a"),
        ({}, '{"a": 1}', "a"),
    ],
)
def test_arguments_in_tags(schema, good, bad):
    text = grammar(
        "qwen-coder", tools=(tool({"x": schema}, **{"$defs": {"n": {"type": "integer"}}}),), required=True
    )
    assert matches(text, tagged(("x", good)), False) == (True, True)
    assert matches(text, tagged(), False) == (True, True)  # it is not required
    if bad is not None:
        assert matches(text, tagged(("x", bad)), False) != (True, True)


def test_required_arguments_in_tags_come_in_order():
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


def test_odd_names_and_texts_in_grammars():
    odd = make_tool("a.b-c", None, {"type": "object", "properties": {'"x\\\n': {"enum": ['"\\']}}}, None, "t")
    for call_format in SEVERAL:
        if call_format not in ("qwen-coder", "seed"):
            error = LLMatcher.validate_grammar(
                grammar(call_format, tools=(odd,), required=True), tokenizer(False)
            )
            assert not error, error
    assert llguidance.__name__
