"""Prepares JSON schemas for llguidance: enforces limits, and drops annotations that it would refuse.

llguidance enforces Draft 2020-12 except for keywords that it reports as not implemented (`not`, `if`,
`uniqueItems`, `contains`, `propertyNames`, …), which are refused. Properties come in the order of the schema.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any, NamedTuple

from engine.errors import ConfigError

MAX_DEPTH = 60  # nested schemas; the text nests about twice as deep, and llguidance reads 128 levels
MAX_PROPERTIES = 1000  # of one object: the time to compile grows with the square
MAX_PROPERTIES_IN_ALL = 5000
MAX_VALUES = 10_000  # of all enums together
MAX_MULTIPLE = 10_000  # states of an automaton

# At most this between two parts, as in llama.cpp: some models would generate white space for ever.
_WHITE_SPACE = r" |\n[ \t]{0,20}"
# Formats that are enforced. Others are annotations, as the standard has it.
FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
_DATA = frozenset(("const", "enum", "default", "examples", "example", "x-guidance", "required", "type"))
_BY_NAME = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))


class Rule(NamedTuple):
    """text: Lark; for a schema `%json {…}`, which stands for a rule. ignored: what will not be enforced."""

    text: str
    ignored: list[str]


def rule(schema: Any) -> Rule:
    """The rule for the JSON values that a schema accepts. Raises ConfigError.

    schema: parsed JSON. Its key `x-guidance`, if present, sets options of llguidance.
    """
    if schema is True:
        schema = {}
    if schema is False:
        raise ConfigError("the schema is false, so nothing matches it")
    if not isinstance(schema, dict):
        raise ConfigError(f"a schema is a JSON object, not {_kind(schema)}")
    ignored: dict[str, None] = {}
    prepared = _Checker(ignored).schema(schema)
    options = prepared.get("x-guidance", {})
    if not isinstance(options, dict):
        raise ConfigError(f"x-guidance must be an object, not {_kind(options)}")
    if not {"whitespace_pattern", "whitespace_flexible"} & options.keys():
        options = {"whitespace_pattern": _WHITE_SPACE, **options}
    prepared["x-guidance"] = options
    return Rule("%json " + dumps(prepared), list(ignored))


def loads(text: str) -> Any:
    """Parse the JSON of a constraint. Raises ConfigError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ConfigError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"the JSON is not valid: {error}") from None


def dumps(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (RecursionError, ValueError, TypeError) as error:
        raise ConfigError(f"this cannot be written as JSON: {error}") from None


class _Checker:
    def __init__(self, ignored: dict[str, None]) -> None:
        self._ignored = ignored
        self._properties = self._values = 0
        self._multiples: set[Fraction] = set()

    def schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        prepared = self._copy(schema, 0)
        dialect = prepared.get("$schema")
        if dialect is not None and not str(dialect).startswith(
            ("http://json-schema.org/", "https://json-schema.org/")
        ):
            del prepared["$schema"]
            self._ignored["$schema"] = None
        self._check_multiples()
        return prepared

    def _copy(self, node: dict[str, Any], depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise ConfigError(f"the schema is nested deeper than {MAX_DEPTH}")
        copied: dict[str, Any] = {}
        for key, value in node.items():
            if key == "format" and isinstance(value, str) and value not in FORMATS:
                self._ignored[f"format {value[:32]!r}"] = None
                continue
            if key == "enum":
                self._count_values(value)
            elif key == "multipleOf":
                self._note_multiple(value)
            if key in _BY_NAME and isinstance(value, dict):
                self._count_properties(value)
                copied[key] = {name: self._any(child, depth + 1) for name, child in value.items()}
            else:
                copied[key] = value if key in _DATA else self._any(value, depth + 1)
        return copied

    def _any(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return self._copy(value, depth)
        if isinstance(value, list):
            if depth > MAX_DEPTH:
                raise ConfigError(f"the schema is nested deeper than {MAX_DEPTH}")
            return [self._any(item, depth + 1) for item in value]
        return value

    def _count_properties(self, named: dict[str, Any]) -> None:
        self._properties += len(named)
        if len(named) > MAX_PROPERTIES or self._properties > MAX_PROPERTIES_IN_ALL:
            raise ConfigError(
                f"the schema has too many properties: at most {MAX_PROPERTIES} in an object and "
                f"{MAX_PROPERTIES_IN_ALL} in all are supported"
            )

    def _count_values(self, values: Any) -> None:
        self._values += len(values) if isinstance(values, list) else 0
        if self._values > MAX_VALUES:
            raise ConfigError(f"enum: more than {MAX_VALUES} values in all are not supported")

    def _note_multiple(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError("multipleOf must be a positive number")
        try:
            self._multiples.add(Fraction(repr(value)))
        except ValueError:  # thousands of digits
            raise ConfigError("multipleOf has too many digits") from None

    def _check_multiples(self) -> None:
        """Two in one place mean their least common multiple, and allOf or $ref may bring any two together."""
        common, unit = 1, math.lcm(*(multiple.denominator for multiple in self._multiples))
        for multiple in self._multiples:
            common = math.lcm(common, int(multiple * unit))
            while common % 10 == 0:  # a digit more, which is no state of the automaton
                common //= 10
            if common > MAX_MULTIPLE:
                raise ConfigError(f"multipleOf: more than {MAX_MULTIPLE} remainders are not supported")


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "null")
