"""Schemas inside of Lark grammars."""

from __future__ import annotations

import pytest

from engine.constraint.gbnf.lark import with_checked_schemas
from engine.constraint.json_schema import rule
from engine.errors import ConfigError


def test_schema_inside_a_grammar_is_enforced_or_refused() -> None:
    grammar = r"""start: a | b "%json {" // %json {"format": "no"}
A: /%json {"format":"no"}\//
a: %json {"format": "x",
   "const": "}"} "tail"
b: %json
{"enum": ["%json {"]}
# %json {
"""
    actual = with_checked_schemas(grammar)
    assert actual.ignored == ["format 'x'"]
    assert actual.text.count("%lark {") == 2
    assert r'"\"}\""' in actual.text
    assert actual.text.count('"format": "no"') == 1
    assert '"tail"' in actual.text
    again = with_checked_schemas('start: %json {"pattern": "x", "type": "string"}')
    assert with_checked_schemas(again.text).text == again.text
    plain = 'start: "a" %json {"unfinished'
    assert with_checked_schemas(plain).text == plain
    assert with_checked_schemas("start: %json true").text == f"start: {rule(True).text}"
    assert with_checked_schemas("start: %json truex").text == "start: %json truex"
    with pytest.raises(ConfigError, match="the schema is false"):
        with_checked_schemas("start: %json false")
    with pytest.raises(ConfigError, match="remainders"):
        with_checked_schemas('start: %json {"multipleOf": 99999989}')


def test_temperature_of_a_rule_is_reported_as_not_enforced() -> None:
    rule_text = 'start: a\na[capture="x]", max_tokens=3, temperature=0.5]: /a+/'
    assert with_checked_schemas(rule_text).ignored == ["the temperature of a rule"]
    for text in ('start: "[temperature=1"', "start: /[temperature=]/", "start: a // [temperature=1]\na: /b/"):
        assert with_checked_schemas(text).ignored == []
