"""JSON schemas as grammars: what is enforced, what is left out, and what is refused in which words."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.constraint.gbnf.lark import with_checked_schemas
from engine.constraint.json_schema import closed, rule
from engine.errors import ConfigError
from engine.exact_json import loads
from support.references.json_walk import accepts, accepts_value, matcher_of, random_text


def takes(schema: Any, text: str, *, close: bool = False) -> bool:
    return accepts(matcher_of(schema, close=close), text)


def test_unknown_formats_are_annotations() -> None:
    schema = {
        "properties": {"format": {"type": "string", "format": "iban"}, "day": {"format": "date"}},
        "items": [{"format": "x"}],
        "default": {"format": "y"},
    }
    assert sorted(rule(schema).ignored) == ["format 'iban'", "format 'x'"]
    assert takes(schema, '{"format": "any", "day": "2024-02-29"}')
    assert not takes(schema, '{"day": "today"}')
    assert takes({"const": {"format": "x"}}, '{"format": "x"}')
    assert takes({"enum": [{"format": "x"}]}, '{"format": "x"}')


@pytest.mark.parametrize("dialect", ["my own", "http://json-schema.org/draft-07/schema#"])
def test_dialects_do_not_matter(dialect: str) -> None:
    assert takes({"$schema": dialect, "type": "integer"}, "3")


# ** white space **

WRITTEN = ['{"a": 1, "b": [1, 2]}', '{"a":1,"b":[1,2]}', '{\n  "a": 1,\n  "b": [\n    1,\n    2\n  ]\n}']
BADLY = ['{"a" : 1, "b": [1]}', '{"a": 1 , "b": [1]}', '{"a":  1, "b": [1]}', '{\n\n"a": 1, "b": [1]}']
BADLY += ['{"a"\n: 1, "b": [1]}', '{"a": 1\n, "b": [1]}', '{"a":\n1, "b": [1]}', '{"a": 1, "b": [1]} ']
AB = {"properties": {"a": {"type": "integer"}, "b": {"items": {"type": "integer"}}}, "required": ["a", "b"]}


def test_white_space_stands_where_writers_put_it() -> None:
    for text in WRITTEN:
        assert takes(AB, text, close=True), text
    for text in BADLY:
        assert not takes(AB, text, close=True), text
    assert not takes(AB, WRITTEN[2].replace("\n  ", "\n" + 21 * " "), close=True)


def test_white_space_by_options() -> None:
    def with_options(**options: Any) -> dict[str, Any]:
        return {**AB, "x-guidance": options}

    compact = with_options(whitespace_flexible=False)
    assert takes(compact, WRITTEN[1], close=True)
    assert not any(takes(compact, text, close=True) for text in (WRITTEN[0], WRITTEN[2], *BADLY))
    one_line = with_options(whitespace_flexible=False, item_separator=", ", key_separator=": ")
    assert takes(one_line, WRITTEN[0], close=True)
    assert not takes(one_line, WRITTEN[1], close=True)
    anywhere = with_options(whitespace_pattern=r"[ \n]{1,30}")
    assert all(takes(anywhere, text, close=True) for text in [*WRITTEN, *BADLY[:-1]])
    assert takes(with_options(whitespace_flexible=True), BADLY[0], close=True)


# ** numbers **

BIG = 1234567890123456789


def test_integers_are_exact() -> None:
    assert takes({"const": BIG}, str(BIG))
    assert not takes({"const": BIG}, "1234567890123456768")
    both = {"enum": [1148723948572938471, 1148723948572938472]}
    assert [takes(both, text) for text in ("1148723948572938471", "1148723948572938472")] == [True, True]
    assert not takes(both, "1148723948572938496")
    between = {"type": "integer", "minimum": BIG, "exclusiveMaximum": BIG + 2}
    assert [takes(between, str(BIG + i)) for i in (-1, 0, 1, 2)] == [False, True, True, False]
    assert takes(loads('{"type": "integer", "minimum": 1e20}'), str(10**20))
    assert not takes(loads('{"type": "integer", "minimum": 1e20}'), str(2**63 - 1))
    assert takes({"const": {"id": [-(10**30)]}}, f'{{"id": [{-(10**30)}]}}')


def test_decimals_are_exact() -> None:
    price = loads('{"const": 0.1234567890123456789}')
    assert takes(price, "0.1234567890123456789")
    assert not takes(price, "0.12345678901234568")
    least = loads('{"type": "number", "minimum": 0.30000000000000001}')
    assert takes(least, "0.30000000000000001")
    assert not takes(least, "0.3")
    assert takes(loads('{"const": 1.50}'), "1.5")
    with pytest.raises(ConfigError, match="a number is out of range"):
        loads('{"const": 1e400}')


def test_numbers_are_not_more_than_a_double_holds() -> None:
    assert takes({"type": "number"}, "-1.5e+30")
    assert not takes({"type": "number"}, "1e999")


@pytest.mark.parametrize(
    "multiples", [[10_000], [0.01, 5, 100_000], [97, 101], [1e-7], [2.5, 0.125], [9973, 0.001], [10**12]]
)
def test_multiples(multiples: list[float]) -> None:
    rule({"allOf": [{"multipleOf": multiple} for multiple in multiples]})


# ** objects **


def test_no_name_comes_twice_where_a_pattern_has_few() -> None:
    """Was answered with `{"k1": 1, "k1": 1}`."""
    schema = {"type": "object", "patternProperties": {"^k[12]$": {}}, "additionalProperties": False}
    assert takes({**schema, "minProperties": 2}, '{"k1": 1, "k2": 1}')
    assert not takes({**schema, "minProperties": 2}, '{"k1": 1, "k1": 1}')
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule({**schema, "minProperties": 3})


def test_a_name_has_one_spelling() -> None:
    """`\\u0061` is another spelling of `a`."""
    schema = {"properties": {"a": {"type": "integer"}, "\x7f": True, "é\n": True}}
    assert takes(schema, '{"a": 1, "\\u007f": 1, "é\\n": 1, "b": 1, "\\u0000": 1}')
    assert not any(takes(schema, text) for text in ('{"\\u0061": "x"}', '{"\\u000a": 1}', '{"\\u00e9": 1}'))


def test_patterns_beside_listed_names() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "patternProperties": {"^a$": {"minimum": 3}, "^x-": {"type": "string"}},
        "additionalProperties": False,
    }
    for text in ('{"a": 3}', "{}", '{"x-1": "y"}', '{"a": 12, "x-a": ""}'):
        assert takes(schema, text), text
    for text in ('{"a": 2}', '{"x-1": 1}', '{"b": 1}', '{"x-1": "y", "a": 3}'):
        assert not takes(schema, text), text


def test_numbers_of_properties() -> None:
    schema = {"type": "object", "properties": {n: {"type": "integer"} for n in "abc"}}
    closed_ = {**schema, "additionalProperties": False}
    assert takes({**closed_, "minProperties": 2}, '{"a": 1, "c": 1}')
    assert not takes({**closed_, "minProperties": 2}, '{"c": 1}')
    assert takes({**closed_, "maxProperties": 1}, '{"c": 1}')
    assert not takes({**closed_, "maxProperties": 1}, '{"a": 1, "c": 1}')
    assert takes({**schema, "minProperties": 4, "maxProperties": 4}, '{"b": 1, "x": 1, "y": 1, "z": null}')
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule({**closed_, "minProperties": 4})


def test_what_stays_open() -> None:
    for schema in (
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "required": ["b"]},
    ):
        assert takes(schema, '{"b": 1}', close=True)
    assert takes({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, '{"b": 1}', close=True)


def test_what_is_closed() -> None:
    inner = {"properties": {"a": {"type": "integer"}}}
    for schema, good, bad in (
        (inner, '{"a": 1}', '{"b": 1}'),
        ({"items": inner}, '[{"a": 1}]', '[{"b": 1}]'),
        ({"allOf": [inner, {"properties": {"b": {}}}]}, '{"a": 1, "b": 1}', '{"c": 1}'),
        ({"allOf": [{"$ref": "#/$defs/i"}], "$defs": {"i": inner}}, '{"a": 1}', '{"b": 1}'),
        ({**inner, "anyOf": [{"properties": {"b": {}}}]}, '{"a": 1, "b": 1}', '{"c": 1}'),
        ({"type": "object", "properties": {}}, "{}", '{"a": 1}'),  # a tool without arguments
    ):
        assert takes(schema, good, close=True)
        assert not takes(schema, bad, close=True)
        assert takes(schema, bad)


names = st.sampled_from(["a", "b", "properties"])
schemas = st.recursive(
    st.sampled_from([True, {}, {"type": "integer"}, {"type": "object"}, {"const": 1}, {"enum": ["a", None]}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "null"]]),
            "properties": st.dictionaries(names, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^x"]), inner, max_size=2),
            "propertyNames": st.sampled_from([{"pattern": "^[a-z]+$"}, {"enum": ["a", "b"]}]),
            "required": st.lists(names, max_size=2, unique=True),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1), max_size=1),
            "unevaluatedProperties": inner,
            "additionalProperties": inner,
            "minProperties": st.integers(0, 2),
            "maxProperties": st.integers(1, 3),
        },
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, database=None)
@given(schema=schemas, seed=st.integers(0, 2**20), close=st.booleans())
def test_every_text_is_valid(schema: Any, seed: int, close: bool) -> None:
    try:
        matcher = matcher_of(schema, close=close)
    except ConfigError:
        return
    text = random_text(matcher, seed, 120)
    if text is not None:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))


values = st.recursive(
    st.integers(0, 2) | st.none() | st.sampled_from(["a", "x"]),
    lambda inner: st.dictionaries(names, inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=4,
)


def in_order(value: Any) -> Any:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


simple = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", "array", "integer", "string", ["integer", "object", "null"]])},
    optional={
        "properties": st.fixed_dictionaries(
            {}, optional={"a": st.just({"type": "integer"}), "b": st.just({})}
        ),
        "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True).map(sorted),
        "additionalProperties": st.booleans(),
        "items": st.sampled_from([{"type": "integer"}, {"type": ["string", "null"]}, {}]),
        "maxItems": st.integers(0, 2),
        "minProperties": st.integers(0, 2),
        "maximum": st.integers(0, 2),
        "maxLength": st.integers(0, 1),
    },
)


@settings(max_examples=200, deadline=None, database=None)
@given(schema=simple, value=values)
def test_valid_values_are_accepted(schema: Any, value: Any) -> None:
    try:
        matcher = matcher_of(schema, close=False)
    except ConfigError:
        assert not jsonschema.Draft202012Validator(schema).is_valid(value)
        return
    # Names that are not listed come last.
    value = {k: value[k] for k in sorted(value)} if isinstance(value, dict) else value
    if isinstance(value, dict) and list(value)[:1] == ["a"] and "a" not in schema.get("properties", {}):
        return
    assert accepts_value(matcher, value) == jsonschema.Draft202012Validator(schema).is_valid(value)


# ** combinations **

ONE_OF = {
    "type": "object",
    "properties": {"kind": {"type": "string"}},
    "oneOf": [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]},
    ],
}


def test_one_of_beside_properties() -> None:
    assert takes(ONE_OF, '{"kind": "x", "a": "1"}', close=True)
    assert not takes(ONE_OF, '{"a": "1", "b": "1"}')
    with pytest.raises(ConfigError, match="branches 0 and 1 may match the same value"):
        rule({"oneOf": [{"type": "integer"}, {"type": "number"}]})
    loose = {"oneOf": [{"type": "integer"}, {"type": "number"}], "x-guidance": {"lenient": True}}
    assert any("oneOf" in what for what in rule(loose).ignored)


def test_patterns_that_are_left_out_if_need_be() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(?!x)"}},
        "patternProperties": {"(?=b)": {"type": "integer"}},
        "propertyNames": {"pattern": "(?=c)"},
        "x-guidance": {"lenient": True},
    }
    assert rule(schema).ignored == ["pattern '^(?!x)'", "pattern '(?=b)'", "pattern '(?=c)'"]
    assert takes(schema, '{"a": "x", "b": "y"}')
    with pytest.raises(ConfigError, match="unclosed group"):
        rule({"pattern": "(", "x-guidance": {"lenient": True}})


def test_values_are_tried_on_patterns_that_no_grammar_has() -> None:
    for schema in (
        {"enum": ["ab", "b"], "pattern": "^(?=.*a)"},
        {"allOf": [{"pattern": "^(?=.*a)"}, {"enum": ["ab", "b"]}]},
    ):
        assert takes(schema, '"ab"')
        assert not takes(schema, '"b"')


@pytest.mark.parametrize(("pattern", "good", "bad"), [("^[a&&b]$", "&", "c"), ("^[[:a]+]$", "[:a]", "a")])
def test_classes_are_those_of_ecma(pattern: str, good: str, bad: str) -> None:
    """Not nested, nor intersected."""
    for schema, text in (
        ({"type": "string", "pattern": pattern}, '"{}"'),
        (
            {"type": "object", "patternProperties": {pattern: {}}, "additionalProperties": False},
            '{{"{}": 1}}',
        ),
        ({"enum": [good, bad], "pattern": pattern}, '"{}"'),
    ):
        assert takes(schema, text.format(good))
        assert not takes(schema, text.format(bad))


def test_references_that_meet_themselves() -> None:
    def tree(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"child": {"$ref": f"#/$defs/{name}"}, name: {"const": 1}}}

    schema = {
        "allOf": [{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}],
        "$defs": {"one": tree("one"), "two": tree("two")},
    }
    assert takes(schema, '{"child": {"one": 1, "two": 1}, "one": 1}', close=True)
    assert not takes(schema, '{"child": {"one": 2}}')


def test_conditions_about_known_values() -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "integer"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["x"]},
    }
    assert takes(schema, '{"kind": "a", "x": 1}')
    assert takes(schema, '{"kind": "b"}')
    assert not takes(schema, '{"kind": "a"}')


def test_conditions_are_not_closed() -> None:
    """An array matches `{"properties": {}}`, and 5 matches both branches."""
    with pytest.raises(ConfigError, match="nothing matches it"):
        rule(closed({"type": "array", "not": {"properties": {}}}))
    named = {"properties": {"a": {}}, "required": ["a"]}
    with pytest.raises(ConfigError, match="branches 0 and 1 may match the same value"):
        rule(closed({"oneOf": [{"$ref": "#/$defs/n"}, {"const": 5}], "$defs": {"n": named}}))
    other = {"properties": {"b": {}}, "required": ["b"]}
    both = {"oneOf": [{"$ref": "#/$defs/n"}, other], "$defs": {"n": named}}
    assert takes(both, '{"a": 1}', close=True)
    assert takes(both, '{"b": 1}', close=True)


def test_the_schema_stays_as_it_is() -> None:
    schema = {"properties": {"a": {"format": "x"}}, "x-guidance": {"lenient": True}}
    before = json.dumps(schema)
    rule(schema)
    assert closed(schema)["x-guidance"] == {"closed": True, "lenient": True}
    assert json.dumps(schema) == before


def nested(n: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(n):
        schema = {"items": schema}
    return schema


REFUSED: list[tuple[Any, str]] = [
    (False, "the schema is false"),
    (None, "not null"),
    (3, "not a number"),
    ([{}], "not a list"),
    ("x", "not a string"),
    ({"x-guidance": 1}, "x-guidance must be an object"),
    ({"x-guidance": {"nix": 1}}, "'nix' is not one of item_separator"),
    ({"x-guidance": {"lenient": 1}}, "lenient must be true or false"),
    (nested(61), "deeper than 60"),
    ({"properties": {f"p{i}": {} for i in range(1001)}}, "too many properties"),
    ({"anyOf": [{"properties": {f"p{i}": {} for i in range(999)}}] * 6}, "too many properties"),
    ({"enum": list(range(10_001))}, "more than 10000 values"),
    ({"multipleOf": 10_007}, "remainders"),
    ({"multipleOf": 2**20}, "remainders"),
    ({"multipleOf": 1e-300}, "remainders"),
    ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "remainders"),
    ({"type": "integer", "multipleOf": 3, "minimum": 2**60}, "more digits than a double holds"),
    ({"multipleOf": 0}, "positive number"),
    ({"multipleOf": "1"}, "positive number"),
    ({"multipleOf": True}, "positive number"),
    ({"maximum": float("inf")}, "cannot be written as JSON"),
    ({"maximum": 10**5000}, "cannot be written as JSON"),
    ({"maximum": "3"}, "maximum must be a number"),
    ({"maxLength": -1}, "maxLength must be an integer from 0"),
    ({"properties": {"a": {"items": {"type": "nix"}}}}, "properties.a.items: type: 'nix' is not one of"),
    ({"properties": []}, "properties must be an object"),
    ({"required": "a"}, "required must be a list of strings"),
    ({"anyOf": []}, "at least one"),
    ({"$ref": "#/$defs/nix"}, "there is no '#/$defs/nix' in the schema"),
    ({"$ref": "https://example.com/x"}, "only references inside of the schema"),
    (
        {"contains": {"type": "null"}},
        "contains is not supported",
    ),
    ({"contains": {}, "minContains": 0, "maxContains": 1}, "maxContains is not supported"),
    (
        {"type": "array", "items": {"enum": list(range(101))}, "uniqueItems": True},
        "uniqueItems is not supported",
    ),
    (
        {"type": "array", "prefixItems": [{"const": 1}, {}], "uniqueItems": True},
        "uniqueItems is not supported",
    ),
    (
        {
            "type": "object",
            "patternProperties": {"^[a-z0-9]{2}$": {}},
            "additionalProperties": False,
            "minProperties": 65,
        },
        "more than 64 names out of a pattern are not supported",
    ),
    (
        {"type": "object", "if": {"properties": {"a": {"minimum": 5}}}, "then": {"required": ["b"]}},
        "if with a condition that is not about properties with a few known values is not supported",
    ),
    ({"type": "array", "uniqueItems": True}, "uniqueItems is not supported but for items out of an enum"),
    ({"propertyNames": {"format": "email"}}, "propertyNames that is neither a list of names nor one pattern"),
    ({"not": {"pattern": "x"}}, "not but for types, constants and required properties is not supported"),
    ({"$dynamicRef": "#x"}, "$dynamicRef is not supported"),
    (
        {"anyOf": [{"$ref": "#"}, {"type": "array"}], "unevaluatedItems": False},
        "unevaluatedItems beside a ref",
    ),
    (
        {"anyOf": [{"$ref": "#"}, {"type": "object"}], "unevaluatedProperties": {}},
        "unevaluatedProperties beside",
    ),
    (
        {"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"type": "string"}}},
        "'^a' and 'b$' may match the same name",
    ),
    (
        {"properties": {"a": {"items": {"type": "string", "pattern": "^(?=.*[A-Z])x"}}}},
        "properties.a.items: the pattern '^(?=.*[A-Z])x' cannot be enforced: look-around, including",
    ),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "("}}},
        "$defs/a: the pattern '(' cannot be enforced: uncl",
    ),
    (
        {"pattern": r"\bx"},
        r"the pattern '\\bx' cannot be enforced: \b, and ^ or $ inside of it, are not supported",
    ),
    ({"pattern": r"(a)\1", "maxLength": 3}, "cannot be enforced: backreferences are not supported"),
    ({"pattern": "\ud800"}, "unpaired surrogates"),
    ({"pattern": "[a--b]"}, "-- inside of a class is not supported"),
    ({"enum": ["a"], "pattern": "("}, "the pattern '(' cannot be enforced: missing )"),
    ({"allOf": [{"enum": ["a"]}, {"pattern": r"\p{L}"}]}, "cannot be enforced: bad escape"),
    (
        {"properties": {"a": {"patternProperties": {"a(?=b)": {}}}}},
        "properties.a.patternProperties: the pattern 'a(?=b)' cannot be enforced: look-around",
    ),
    (
        {"patternProperties": {"(": {}}},
        "patternProperties: the pattern '(' cannot be enforced: unclosed group",
    ),
    ({"patternProperties": {r"\p{L}": {}}}, "cannot be enforced: bad escape"),
    (
        {"patternProperties": {"a$b": {}}},
        "cannot be enforced: \\b, and ^ or $ inside of it, are not supported",
    ),
    ({"patternProperties": {"\ud800": {}}}, "unpaired surrogates"),
    (
        {"propertyNames": {"pattern": "(?!a)"}},
        "propertyNames: the pattern '(?!a)' cannot be enforced: look-around",
    ),
    ({"type": "integer", "minimum": 2, "maximum": 1}, "nothing matches it: no number is between 2 and 1"),
    ({"properties": {"a": False}, "required": ["a"]}, "nothing matches"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_refusals(schema: Any, message: str) -> None:
    if isinstance(schema, dict):
        schema = {"type": "object", **schema} if "required" in schema and "type" not in schema else schema
    with pytest.raises(ConfigError) as raised:
        rule(schema)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 400


def test_schemas_inside_of_grammars() -> None:
    grammar = r"""start: a | b "%json {" // %json {"format": "no"}
A: /%json {"format":"no"}\//
a: %json {"format": "x",
   "const": "}"} "tail"
b: %json
{"enum": ["%json {"]}
# %json {
"""
    found = with_checked_schemas(grammar)
    assert found.ignored == ["format 'x'"]
    assert found.text.count("%lark {") == 2
    assert r'"\"}\""' in found.text
    assert found.text.count('"format": "no"') == 1
    assert '"tail"' in found.text
    again = with_checked_schemas('start: %json {"pattern": "x", "type": "string"}')
    assert with_checked_schemas(again.text).text == again.text
    plain = 'start: "a" %json {"unfinished'
    assert with_checked_schemas(plain).text == plain
    with pytest.raises(ConfigError, match="remainders"):
        with_checked_schemas('start: %json {"multipleOf": 99999989}')
