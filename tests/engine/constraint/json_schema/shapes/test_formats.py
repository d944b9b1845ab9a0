"""Formats as patterns: they mean what the same formats mean alone."""

from __future__ import annotations

import json
import random
import re

import pytest
from jsonschema import FormatChecker

from engine.constraint.json_schema.shapes.formats import FORMATS
from support.references.json_walk import accepts, matcher_of

VALUES = {
    "date-time": [
        "2024-02-29T00:00:00Z",
        "2023-12-31T23:59:59.5+01:30",
        "2024-02-30T00:00:00Z",
        "2024-02-03",
    ],
    "date": ["2024-02-29", "2024-04-30", "2024-04-31", "2024-00-10", "24-01-01"],
    "time": ["00:00:00Z", "23:59:59.123-08:00", "24:00:00Z", "12:00:00", "12:60:00Z"],
    "duration": ["P1W", "P1Y2M3D", "PT1H2M3S", "P1DT1S", "P", "PT", "P1W1D", "1D", "P1S"],
    "email": ["a@b.de", "a.b+c@d-e.org", "a@", ".a@b.de", "a..b@c.de", "a@-b.de", "a b@c.de"],
    "hostname": ["a", "a-b.c", "a" * 63, "a" * 64, "-a", "a..b", ".".join(["a" * 61] * 4), "a_b"],
    "ipv4": ["0.0.0.0", "255.255.255.255", "256.0.0.1", "1.2.3", "01.2.3.4"],
    "ipv6": [
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3::7:8",
        "1:2:3:4:5:6:7",
        "1::2::3",
    ],
    "uuid": ["12345678-1234-1234-1234-123456789abc", "123456781234123412341234567890ab", "x"],
    "uri": [
        "http://a.b/c?d=e#f",
        "urn:a:b",
        "mailto:a@b.de",
        "http://[::1]:80/",
        "a b",
        "//a",
        "http://a/%zz",
        "/",
    ],
}


def test_every_format_has_values_to_try() -> None:
    assert set(FORMATS) == set(VALUES)


@pytest.mark.parametrize("format", FORMATS)
def test_format_beside_a_pattern_accepts_the_same_values_as_alone(format: str) -> None:
    alone = matcher_of({"type": "string", "format": format})
    both = matcher_of({"type": "string", "format": format, "pattern": "(?!x^)"})
    results = [(text, accepts(both, json.dumps(text))) for text in VALUES[format]]
    assert results == [(text, accepts(alone, json.dumps(text))) for text in VALUES[format]]
    assert {result for _, result in results} == {True, False}


@pytest.mark.parametrize("text", ["::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4"])
def test_address_that_ends_as_ipv4_is_an_ipv6_address(text: str) -> None:
    assert FormatChecker().conforms(text, "ipv6")
    assert re.search(FORMATS["ipv6"], text)


@pytest.mark.parametrize("format", ["date", "ipv4", "ipv6", "uuid", "email"])
def test_changed_values_are_judged_as_by_jsonschema(format: str) -> None:
    chance = random.Random(format)
    checker, pattern = FormatChecker(), re.compile(FORMATS[format])
    assert format in checker.checkers
    for _ in range(3000):
        text = list(chance.choice(VALUES[format][:2]))
        for _ in range(chance.randint(0, 3)):
            i = chance.randrange(len(text) + 1)
            text[i : i + chance.randint(0, 2)] = chance.choice([*"012359:.-aPTWD", ""])
        value = "".join(text)
        if pattern.search(value) and not (format == "date" and value.endswith("02-29")):
            assert checker.conforms(value, format), value
