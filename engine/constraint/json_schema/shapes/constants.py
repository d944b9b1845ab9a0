"""Shapes of single values."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from engine.constraint.json_schema.shapes.types import (
    AnyOf,
    Array,
    Boolean,
    Nothing,
    Null,
    Number,
    Object,
    Shape,
    String,
    any_of,
)
from engine.errors import ConfigError
from engine.exact_json import number


def constant(value: Any) -> Shape:
    """The shape of one value."""
    if value is None:
        return Null()
    if isinstance(value, bool):
        return Boolean(value)
    if isinstance(value, str):
        return String(values=(value,))
    if isinstance(value, list):
        return Array(tuple(map(constant, value)), Nothing(), len(value), len(value))
    if isinstance(value, dict):
        return Object(tuple((n, constant(v)) for n, v in value.items()), tuple(value), (), Nothing())
    exact = number(value)
    if exact is None:
        raise ConfigError("a constant is not a value of JSON")
    return Number(values=(exact,))


def single(value: str | Decimal) -> Shape:
    return String(values=(value,)) if isinstance(value, str) else Number(values=(value,))


def merged(shapes: list[Shape]) -> Shape:
    """One of several constants: strings together, and numbers."""
    strings = tuple(dict.fromkeys(v for s in shapes if isinstance(s, String) for v in s.values or ()))
    numbers = tuple(dict.fromkeys(v for s in shapes if isinstance(s, Number) for v in s.values or ()))
    rest = [shape for shape in shapes if not isinstance(shape, String | Number)]
    first: list[Shape] = [String(values=strings)] if strings else []
    return any_of([*first, *([Number(values=numbers)] if numbers else []), *rest])


def constants(shape: Shape | None) -> list[Shape] | None:
    """The single values that a shape consists of, if it does."""
    match shape:
        case Boolean(None):
            return [Boolean(True), Boolean(False)]
        case Null() | Boolean():
            return [shape]
        case String(values=tuple(values)):
            return [String(values=(value,)) for value in values]
        case Number(values=tuple(values)):
            return [replace(shape, values=(value,)) for value in values]
        case AnyOf(options):
            parts = [constants(option) for option in options]
            return None if None in parts else [value for part in parts for value in part or ()]
    return None
