"""Numbers and strings are exact."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.exact_json import loads
from support.references.json_walk import accepts, matcher_of, refusal, takes

BIG = 1234567890123456789


def test_integer_bounds_are_exact() -> None:
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


def test_decimal_bounds_are_exact() -> None:
    price = loads('{"const": 0.1234567890123456789}')
    assert takes(price, "0.1234567890123456789")
    assert not takes(price, "0.12345678901234568")
    least = loads('{"type": "number", "minimum": 0.30000000000000001}')
    assert takes(least, "0.30000000000000001")
    assert not takes(least, "0.3")
    assert takes(loads('{"const": 1.50}'), "1.5")
    with pytest.raises(ConfigError, match="a number is out of range"):
        loads('{"const": 1e400}')


def test_generated_number_fits_in_a_double() -> None:
    assert takes({"type": "number"}, "-1.5e+30")
    assert not takes({"type": "number"}, "1e999")


def test_a_name_has_one_spelling() -> None:
    """`\\u0061` is another spelling of `a`."""
    schema = {"properties": {"a": {"type": "integer"}, "\x7f": True, "é\n": True}}
    assert takes(schema, '{"a": 1, "\\u007f": 1, "é\\n": 1, "b": 1, "\\u0000": 1}')
    assert not any(takes(schema, text) for text in ('{"\\u0061": "x"}', '{"\\u000a": 1}', '{"\\u00e9": 1}'))


REFUSED: list[tuple[Any, str]] = [
    ({"type": "integer", "multipleOf": 3, "minimum": 2**60}, "more digits than a double holds"),
    ({"type": "number", "multipleOf": 0.00001234}, "multipleOf: 0.00001234 has too many digits"),
    ({"type": "integer", "multipleOf": 10**10}, "multipleOf: 10000000000 has too many digits"),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED)
def test_write_of_an_unsupported_scalar_is_refused(schema: Any, message: str) -> None:
    assert message in refusal(schema)


@pytest.mark.parametrize(
    "schema", [{"type": "string"}, {"type": "string", "maxLength": 1}, {"pattern": "(?!x^)"}]
)
def test_every_character_has_one_spelling(schema: dict[str, Any]) -> None:
    matcher = matcher_of({"type": "string", **schema})
    for c in [*map(chr, range(256)), "\u2028", "\uffff", "😀"]:
        spelled = json.dumps(c, ensure_ascii=False).replace("\x7f", r"\u007f")
        assert accepts(matcher, spelled), c
        escaped = f'"\\u{ord(c):04x}"'
        assert accepts(matcher, escaped) == (escaped == spelled), c
