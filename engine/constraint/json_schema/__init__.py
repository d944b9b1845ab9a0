"""JSON Schemas as grammars of llguidance: read exactly, or refused by name.

`reading` turns a schema into `shapes`, which are combined and taken apart there; `writing` writes those as a
grammar. llguidance's own `%json` is used for single strings only: it rounds numbers to doubles, lets white
space stand anywhere, and takes two spellings of one name for two names. Properties come in the order of the
schema.

Patterns of whole texts (`whole_text`) are read as those of schemas, where they have look-ahead.

Used by `engine.constraint`; the server reads no schemas, and uses `closed` and `exclusive` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.constraint.json_schema.reading.limits import kind
from engine.constraint.json_schema.reading.reader import Reader
from engine.constraint.json_schema.shapes.lookahead import whole_text
from engine.constraint.json_schema.writing.scalars import FREE_NAME, LIMITED_NAME
from engine.constraint.json_schema.writing.spacing import Spacing
from engine.constraint.json_schema.writing.writer import Writer
from engine.errors import ConfigError
from engine.exact_json import dumps

__all__ = ["FREE_NAME", "LIMITED_NAME", "Rule", "closed", "exclusive", "rule", "whole_text"]
_OPTIONS = {
    "item_separator": str,
    "key_separator": str,
    "whitespace_pattern": str,
    "whitespace_flexible": bool,
    "coerce_one_of": bool,
    "lenient": bool,
    "closed": bool,
}


class Rule(NamedTuple):
    """text: in Lark; of a schema an expression that stands for a rule. ignored: what will not be enforced."""

    text: str
    ignored: list[str]


def rule(schema: Any) -> Rule:
    """The rule that matches the JSON values that a schema allows. Raises ConfigError.

    schema: as JSON parsed. Its key `x-guidance`, if it has one, sets options: `whitespace_flexible: false`
    for compact output; `item_separator`, `key_separator`, `whitespace_pattern` (regular expressions);
    `lenient` (leave out what cannot be enforced); `coerce_one_of` (oneOf as anyOf); `closed` (see below). An
    option that is null has its default.
    """
    if schema is False:
        raise ConfigError("the schema is false, which nothing matches")
    if schema is not True and not isinstance(schema, dict):
        raise ConfigError(f"a schema is a JSON object, not {kind(schema)}")
    document = {} if schema is True else schema
    options = document.get("x-guidance", {})
    if not isinstance(options, dict):
        raise ConfigError(f"x-guidance must be an object, not {kind(options)}")
    _check_options(options)
    dumps(document)  # what cannot be written is no JSON
    closed, lenient = bool(options.get("closed")), bool(options.get("lenient"))
    try:
        reader = Reader(document, closed=closed, lenient=lenient, coerce=bool(options.get("coerce_one_of")))
        root = reader.root()
        spacing = Spacing.of(options)
        writer = Writer(reader.meets, spacing, closed=closed, lenient=lenient, ignored=reader.ignored)
        text = writer.text(root)
    except RecursionError:
        raise ConfigError("the schema is nested too deeply") from None
    unlisted = any(line.startswith((FREE_NAME, LIMITED_NAME)) for line in text.split("\n"))
    if unlisted and not spacing.is_json:  # names could come twice
        raise ConfigError(
            "x-guidance: separators and white space that JSON does not have are not supported with names "
            "that the schema does not list"
        )
    return Rule(text, list(reader.ignored))


def exclusive(groups: Iterable[Sequence[Any]], document: Mapping[str, Any]) -> bool:
    """Whether it is certain, in each group of schemas, that what is written for one matches no other.

    document: what they refer to. Objects are closed. Raises ConfigError for what `rule` refuses, and for
    groups that are too much work together.
    """
    reader = Reader(document, closed=True, lenient=False, coerce=False)
    try:
        return all(map(reader.exclusive, groups))
    except RecursionError:
        raise ConfigError("the schema is nested too deeply") from None


def closed(schema: Any) -> Any:
    """The schema, with the option that an object that lists properties has no others.

    The standard allows any further property unless a schema forbids it. Hardly anybody means that who asks a
    model for some, and a small model then never comes to an end. What is valid for the closed schema is valid
    for the given one. It stays open where it speaks of others: `additionalProperties`, `patternProperties`,
    or a property that is required and not listed.
    """
    if not isinstance(schema, dict):
        return schema
    options = schema.get("x-guidance", {})
    return {**schema, "x-guidance": {"closed": True, **options}} if isinstance(options, dict) else schema


def _check_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        expected_type = _OPTIONS.get(name)
        if expected_type is None:
            raise ConfigError(f"x-guidance: {name[:32]!r} is not one of {', '.join(_OPTIONS)}")
        if value is not None and not isinstance(value, expected_type):
            raise ConfigError(
                f"x-guidance: {name} must be {'true or false' if expected_type is bool else 'a string'}"
            )
