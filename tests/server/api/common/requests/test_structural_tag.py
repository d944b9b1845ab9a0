"""Structural tags as grammars: which texts they allow."""

from __future__ import annotations

import pytest

from server.api.common.requests.structural_tag import MAX_DEPTH, MAX_PARTS, structural_tag
from server.errors import ApiError
from support.references.json_walk import accepts, compiler

INTEGER = {"type": "integer"}
TAG = {"begin": "<f=a>", "content": {"type": "json_schema", "json_schema": INTEGER}, "end": "</f>"}
TRIGGERED = {"type": "triggered_tags", "triggers": ["<f="], "tags": [TAG]}
ANY = {"type": "any_text"}
LETTER = {"type": "const_string", "value": "a"}
ENDLESS = {"type": "tag", "begin": "<t>", "content": ANY, "end": ""}
SEPARATED = {"type": "tags_with_separator", "tags": [ENDLESS], "separator": ",", "at_least_one": True}
ONE_TRIGGERED = {
    **TRIGGERED,
    "tags": [{**ENDLESS, "begin": "<f="}],
    "at_least_one": True,
    "stop_after_first": True,
}


class Warned:
    """Stands for a request's context."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def matches(value, text):
    constraint = structural_tag(value, "structural_tag", Warned()).constraint
    return accepts(compiler().compile(constraint), text)


STRUCTURES = {
    "type": "structural_tag",
    "structures": [
        {"begin": "<f=a>", "schema": INTEGER, "end": "</f>"},
        {"begin": "<f=b>", "schema": {"enum": ["x"]}, "end": "</f>"},
    ],
    "triggers": ["<f="],
}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("just text", True),
        ("", True),
        ('first <f=a>12</f> then <f=b>"x"</f> end', True),
        ("first <f=a>x</f>", False),
        ("first <f=c>12</f>", False),
        ("<f=a>12", False),
        ("a < b and f=c", True),
        ("<f=a>1</f> and again <f=b>2</f>", False),
    ],
)
def test_structures_constrain_text_after_a_trigger(text, allowed):
    assert matches(STRUCTURES, text) is allowed


@pytest.mark.parametrize(
    ("format", "yes", "no"),
    [
        ({"type": "const_string", "value": 'a"b'}, ['a"b'], ["a", ""]),
        ({"type": "json_schema", "json_schema": INTEGER}, ["12"], ["x"]),
        (
            {"type": "json_schema", "json_schema": True},
            ['{"a": 1, "b": 2}'],
            ['{"a": 1, "a": 2}', '{"a" : 1}'],
        ),
        ({"type": "any_text"}, ["", "x\ny"], []),
        (
            {"type": "or", "elements": [{"type": "const_string", "value": v} for v in "ab"]},
            ["a", "b"],
            ["ab", "c"],
        ),
        (
            {
                "type": "sequence",
                "elements": [
                    {"type": "tag", "begin": "<t>", "content": {"type": "any_text"}, "end": "</t>"},
                    TRIGGERED,
                ],
            },
            ["<t>so</t>", "<t>so</t>x<f=a>1</f>y"],
            ["so", "<t>so", "<t>so</t><f=a>x</f>"],
        ),
        (TRIGGERED, ["x", "x<f=a>1</f><f=a>2</f>y"], ["<f=b>1</f>"]),
        (ENDLESS, ["<t>", "<t>x</t>"], ["x"]),
        (
            {"type": "or", "elements": [ENDLESS, {"type": "sequence", "elements": [LETTER, ANY]}, TRIGGERED]},
            ["<t>so", "a", "and", "x<f=a>1</f>"],
            ["x<f=a>x</f>"],
        ),
        ({"type": "sequence", "elements": [LETTER, SEPARATED]}, ["a<t>x,<t>y"], ["<t>x", "a"]),
        ({**TRIGGERED, "at_least_one": True}, ["x<f=a>1</f>y"], ["x", ""]),
        ({**TRIGGERED, "stop_after_first": True}, ["x", "x<f=a>1</f>"], ["x<f=a>1</f>y"]),
        (
            {"type": "tags_with_separator", "tags": [TAG], "separator": ","},
            ["", "<f=a>1</f>", "<f=a>1</f>,<f=a>2</f>"],
            ["<f=a>1</f><f=a>2</f>", "x"],
        ),
        (
            {
                "type": "tags_with_separator",
                "tags": [TAG],
                "separator": ",",
                "at_least_one": True,
                "stop_after_first": True,
            },
            ["<f=a>1</f>"],
            ["", "<f=a>1</f>,<f=a>2</f>"],
        ),
    ],
)
def test_format_allows_exactly_what_it_describes(format, yes, no):
    value = {"type": "structural_tag", "format": format}
    assert [text for text in yes if not matches(value, text)] == []
    assert [text for text in no if matches(value, text)] == []


def nested(depth):
    format = {"type": "const_string", "value": "a"}
    for _ in range(depth):
        format = {"type": "sequence", "elements": [format]}
    return format


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "tag"),
        ({"type": "x", "format": ANY}, "tag.type"),
        ({"structures": [], "triggers": ["<"]}, "tag"),
        ({**STRUCTURES, "triggers": ["<f=", "<g="]}, "tag.triggers"),
        ({**STRUCTURES, "triggers": ["<f=a"]}, "tag.structures[1].begin"),
        ({**STRUCTURES, "triggers": [""]}, "tag.triggers"),
        ({"structures": [{"begin": "<", "end": ">"}], "triggers": ["<"]}, "tag.structures[0].schema"),
        ({"format": {"type": "frog"}}, "tag.format.type"),
        ({"format": {"type": "sequence", "elements": []}}, "tag.format.elements"),
        ({"format": {"type": "sequence", "elements": [ANY, ANY]}}, "tag.format.elements"),
        ({"format": {"type": "or", "elements": [ANY]}}, "tag.format.elements"),
        ({"format": {"type": "sequence", "elements": [ENDLESS, LETTER]}}, "tag.format.elements"),
        ({"format": {"type": "sequence", "elements": [SEPARATED, LETTER]}}, "tag.format.elements"),
        ({"format": {"type": "sequence", "elements": [ONE_TRIGGERED, LETTER]}}, "tag.format.elements"),
        (
            {
                "format": {
                    "type": "sequence",
                    "elements": [{"type": "or", "elements": [ENDLESS, LETTER]}, LETTER],
                }
            },
            "tag.format.elements",
        ),
        ({"format": {**ENDLESS, "content": SEPARATED, "end": "x"}}, "tag.format.content"),
        ({"format": {**TAG, "type": "tag", "content": TRIGGERED}}, "tag.format.content"),
        ({"format": {"type": "tags_with_separator", "tags": [], "separator": ","}}, "tag.format.tags"),
        ({"format": {**TAG, "type": "tag", "end": 5}}, "tag.format.end"),
        ({"format": nested(MAX_DEPTH)}, "tag.format" + ".elements[0]" * MAX_DEPTH),
    ],
)
def test_invalid_tags_are_refused_by_name(value, param):
    with pytest.raises(ApiError) as caught:
        structural_tag(value, "tag", Warned())
    assert caught.value.param == param
    assert caught.value.status_code == 400


def test_fields_without_effect_are_warned_of():
    context = Warned()
    structural_tag({**STRUCTURES, "mood": 1}, "tag", context)
    assert context.warnings == ["tag.mood has no effect"]


def nested_tags(kind, depth):
    format = {"type": "const_string", "value": "x"}
    for _ in range(depth):
        tag = {"begin": "<<", "content": format, "end": ">>"}
        format = {"type": kind, "tags": [tag], "separator": ",", "triggers": ["<", "<<"]}
        format["at_least_one"] = True
        if kind == "triggered_tags":
            format["stop_after_first"] = True
    return format


@pytest.mark.parametrize("kind", ["tags_with_separator", "triggered_tags"])
def test_nested_tags_do_not_double_the_grammar(kind):
    def length(depth):
        tag = {"type": "structural_tag", "format": nested_tags(kind, depth)}
        return len(structural_tag(tag, "structural_tag", Warned()).constraint.text)

    assert length(12) - length(8) < 2 * (length(8) - length(4))


@pytest.mark.parametrize(
    ("kind", "text"), [("tags_with_separator", "<<<<x>>,<<x>>>>"), ("triggered_tags", "a<<b<<x>>>>")]
)
def test_nested_tags_match_what_they_describe(kind, text):
    tag = {"type": "structural_tag", "format": nested_tags(kind, 2)}
    assert matches(tag, text)
    assert not matches(tag, text.replace("x", "y"))


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (
            {
                "structures": [{"begin": "<", "schema": {}, "end": ">"}] * 65,
                "triggers": ["<" * n for n in range(1, 66)],
            },
            "formats, tags and triggers",
        ),
        (
            {"format": {"type": "or", "elements": [{"type": "const_string", "value": "a"}] * MAX_PARTS}},
            "formats, tags and triggers",
        ),
        (
            {
                "structures": [{"begin": "<" * 40_000, "schema": {}, "end": ">"}],
                "triggers": ["<" * n for n in range(1, 40)],
            },
            "characters",
        ),
    ],
)
def test_tags_that_would_take_much_memory_are_refused(tag, reason):
    with pytest.raises(ApiError, match=f"more than .* {reason} .*not supported"):
        structural_tag(tag, "structural_tag", Warned())


def test_duplicate_triggers_count_once():
    repeated = {**STRUCTURES, "triggers": ["<f="] * 10_000}
    assert matches(repeated, "<f=a>12</f>")
