"""What shapes have in common, and whether they have anything in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from math import inf
from typing import TypeVar

from engine.constraint.json_schema.shapes import names
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
    SCALARS,
    AnyOf,
    Anything,
    Array,
    Boolean,
    Meet,
    Nothing,
    Null,
    Number,
    Object,
    Reference,
    Shape,
    String,
    any_of,
)
from engine.errors import ConfigError

MAX_SHAPES = 50_000
MAX_LOOKS = 200_000  # pairs of shapes that `disjoint` compares, in all
_MAX_LOOK = 8  # levels that it looks into

_T = TypeVar("_T")
Resolve = Callable[[Reference], Shape | None]  # None: it is being read
Known = dict[tuple[Reference, Reference, int], bool]


class Meets:
    """resolve: the shape that a reference stands for."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._n_shapes = self._n_looks = 0

    def meet(self, one: Shape, other: Shape) -> Shape:
        """What matches both. Properties come in the order of `one`, then of `other`."""
        self._n_shapes += 1
        if self._n_shapes > MAX_SHAPES:
            raise ConfigError("the schema is too complex: it combines too many parts")
        if isinstance(one, Anything) or one == other:
            return other
        if isinstance(other, Anything):
            return one
        for shape in (one, other):
            if isinstance(shape, Nothing):
                return shape
        if isinstance(one, Reference) or isinstance(other, Reference):
            return self._meet_references(one, other)
        if isinstance(one, AnyOf):
            return any_of([self.meet(option, other) for option in one.options])
        if isinstance(other, AnyOf):
            return any_of([self.meet(one, option) for option in other.options])
        match one, other:
            case Boolean(value), Boolean(second):
                if None not in (value, second):
                    return Nothing("true and false exclude each other")
                return Boolean(second if value is None else value)
            case Number(), Number():
                return _meet_numbers(one, other)
            case String(), String():
                return _meet_strings(one, other)
            case Array(), Array():
                return self._meet_arrays(one, other)
            case Object(), Object():
                return self._meet_objects(one, other)
        return Nothing(f"a value is not {_kind(one)} and {_kind(other)} at once")

    def resolved(self, shape: Shape) -> Shape | None:
        """The shape itself, or what a reference stands for in the end; None while that is being read."""
        seen = set()
        while isinstance(shape, Reference):
            if shape in seen:
                return Nothing("a reference leads to itself")
            seen.add(shape)
            target = self._resolve(shape)
            if target is None:
                return None
            shape = target
        return shape

    def closed(self, shape: Shape, keyword: str, rest: Shape) -> Shape:
        """With `rest` for what is not spoken of. keyword: unevaluatedProperties or unevaluatedItems."""
        shape = self.resolved(shape) or shape
        match shape:
            case AnyOf(options):
                return any_of([self.closed(option, keyword, rest) for option in options])
            case Anything():
                return any_of([*SCALARS, *(self.closed(o, keyword, rest) for o in (Array(), Object()))])
            case Object(additional=None) if keyword == "unevaluatedProperties":
                return replace(shape, additional=rest)
            case Array(items=None) if keyword == "unevaluatedItems":
                return replace(shape, items=rest)
            case Reference():
                raise ConfigError(f"{keyword} next to a reference to itself is not supported")
        return shape

    def _meet_references(self, one: Shape, other: Shape) -> Shape:
        if not (isinstance(one, Reference) and isinstance(other, Reference)):
            first, second = self.resolved(one), self.resolved(other)
            if first is not None and second is not None:
                return self.meet(first, second)
        return Reference(Meet(one, other))  # for later: these may lead here again

    def _meet_arrays(self, one: Array, other: Array) -> Shape:
        n = max(len(one.prefix), len(other.prefix))
        prefix = [self.meet(one.item(i), other.item(i)) for i in range(n)]
        least, most = max(one.least, other.least), _least(one.most, other.most)
        if most is not None and least > most:
            return Nothing(f"at least {least} and at most {most} items exclude each other")
        return Array(
            tuple(prefix),
            self._meet_unspoken(one.items, other.items),
            least,
            most,
            one.distinct or other.distinct,
            one.where or other.where,
        )

    def _meet_unspoken(self, one: Shape | None, other: Shape | None) -> Shape | None:
        if one is None or other is None:
            return other if one is None else one
        return self.meet(one, other)

    def _meet_objects(self, one: Object, other: Object) -> Shape:
        properties = {name: self.meet(shape, self.property(other, name)) for name, shape in one.properties}
        for name, shape in other.properties:
            if name not in properties:
                properties[name] = self.meet(self.property(one, name), shape)
        second = dict(other.patterns)
        patterns: dict[str, Shape] = {}
        for pattern, shape in one.patterns:
            beside = second.pop(pattern) if pattern in second else _beside(other, pattern)
            patterns[pattern] = self.meet(shape, beside)
        for pattern, shape in second.items():
            patterns[pattern] = self.meet(shape, _beside(one, pattern))
        return checked(
            Object(
                tuple(properties.items()),
                tuple(dict.fromkeys((*one.required, *other.required))),
                tuple(patterns.items()),
                self._meet_unspoken(one.additional, other.additional),
                max(one.least, other.least),
                _least(one.most, other.most),
                one.closable or other.closable,
            )
        )

    def property(self, shape: Object, name: str) -> Shape:
        """What a property of this name may be."""
        result = shape.by_name.get(name)
        if result is not None:
            return result
        matching = [value for pattern, value in shape.patterns if names.matches(pattern, name)]
        if not matching:
            return shape.additional or ANYTHING
        result = ANYTHING
        for value in matching:
            result = self.meet(result, value)
        return result

    # ** disjoint **

    def disjoint(self, one: Shape, other: Shape) -> bool:
        """Whether it is certain that no value matches both."""
        return self._disjoint(one, other, 0, {})

    def _disjoint(self, one: Shape, other: Shape, depth: int, known: Known) -> bool:
        """known: references that were compared before, which otherwise multiply at each level."""
        self._n_looks += 1
        if self._n_looks > MAX_LOOKS:
            raise ConfigError("the schema is too complex: it has too many branches to tell apart")
        if not (isinstance(one, Reference) and isinstance(other, Reference)):
            return self._compare(one, other, depth, known)
        key = one, other, depth
        if key not in known:
            known[key] = self._compare(one, other, depth, known)
        return known[key]

    def _compare(self, one: Shape, other: Shape, depth: int, known: Known) -> bool:
        first, second = self.resolved(one), self.resolved(other)
        if first is None or second is None or depth > _MAX_LOOK:
            return False
        if isinstance(first, Nothing) or isinstance(second, Nothing):
            return True
        if isinstance(first, Anything) or isinstance(second, Anything):
            return False
        if isinstance(first, AnyOf):
            return all(self._disjoint(option, other, depth + 1, known) for option in first.options)
        if isinstance(second, AnyOf):
            return all(self._disjoint(one, option, depth + 1, known) for option in second.options)
        match first, second:
            case (Boolean(), Boolean()) | (Number(), Number()) | (String(), String()):
                return isinstance(self.meet(first, second), Nothing)
            case Object(), Object():
                if isinstance(self._bare(first, second), Nothing):
                    return True
                return any(
                    self._disjoint(self.property(first, name), self.property(second, name), depth + 1, known)
                    for name in dict.fromkeys((*first.required, *second.required))
                )
            case Array(), Array():
                most = min(inf if a.most is None else a.most for a in (first, second))
                least = max(first.least, second.least)
                return least > most or any(
                    self._disjoint(first.item(i), second.item(i), depth + 1, known)
                    for i in range(min(least, 16))
                )
        return type(first) is not type(second)

    @staticmethod
    def _bare(one: Object, other: Object) -> Shape:
        """What the numbers of properties have in common."""
        required = tuple(dict.fromkeys((*one.required, *other.required)))
        least, most = max(one.least, other.least), _least(one.most, other.most)
        return checked(Object(required=required, least=least, most=most))


def _beside(shape: Object, pattern: str) -> Shape:
    """What names that match a pattern may be there where it is not listed."""
    if any(names.overlap(pattern, other) for other, _ in shape.patterns):
        return ANYTHING  # both patterns will stand, and be refused if they do not mean the same
    return shape.additional or ANYTHING


def checked(shape: Object) -> Shape:
    """The shape, or Nothing if the number of its properties cannot be right."""
    if shape.most is not None and max(shape.least, len(shape.required)) > shape.most:
        return Nothing(f"at most {shape.most} properties are too few for those that are required")
    return shape


def checked_number(shape: Number) -> Shape:
    """The shape, with its values tried; Nothing if no number is in its bounds."""
    if shape.values is not None:
        values = tuple(value for value in shape.values if shape.holds(value))
        return Number(shape.integer, values=values) if values else Nothing("no value is within the bounds")
    low, high = shape.low, shape.high
    if (
        low is not None
        and high is not None
        and (low > high or (low == high and (shape.low_open or shape.high_open)))
    ):
        return Nothing(f"no number is between {low} and {high}")
    return shape


def checked_string(shape: String) -> Shape:
    if shape.values is not None:
        values = [
            v for v in shape.values if shape.least <= len(v) <= (inf if shape.most is None else shape.most)
        ]
        values = [v for v in values if all(names.matches(pattern, v) for pattern in shape.patterns)]
        return String(values=tuple(values)) if values else Nothing("no value fits length and pattern")
    if shape.most is not None and shape.least > shape.most:
        return Nothing(f"minLength {shape.least} is more than maxLength {shape.most}")
    return shape


def _meet_numbers(one: Number, other: Number) -> Shape:
    low, low_open = max(_bounds(one.low, one.low_open, -inf), _bounds(other.low, other.low_open, -inf))
    high, high_closed = min(
        _bounds(one.high, not one.high_open, inf), _bounds(other.high, not other.high_open, inf)
    )
    return checked_number(
        Number(
            one.integer or other.integer,
            low if isinstance(low, Decimal) else None,
            low_open,
            high if isinstance(high, Decimal) else None,
            not high_closed and isinstance(high, Decimal),
            tuple(dict.fromkeys((*one.multiples, *other.multiples))),
            _common(one.values, other.values),
        )
    )


def _common(one: tuple[_T, ...] | None, other: tuple[_T, ...] | None) -> tuple[_T, ...] | None:
    """The values that are in both; None: any."""
    if one is None or other is None:
        return other if one is None else one
    second = set(other)
    return tuple(value for value in one if value in second)


def _bounds(bound: Decimal | None, flag: bool, default: float) -> tuple[Decimal | float, bool]:
    return (default, False) if bound is None else (bound, flag)


def _meet_strings(one: String, other: String) -> Shape:
    return checked_string(
        String(
            max(one.least, other.least),
            _least(one.most, other.most),
            tuple(dict.fromkeys((*one.patterns, *other.patterns))),
            tuple(dict.fromkeys((*one.formats, *other.formats))),
            _common(one.values, other.values),
            one.where or other.where,
        )
    )


def _least(one: int | None, other: int | None) -> int | None:
    return min((n for n in (one, other) if n is not None), default=None)


def _kind(shape: Shape) -> str:
    return {
        Null: "null",
        Boolean: "a boolean",
        Number: "a number",
        String: "a string",
        Array: "an array",
        Object: "an object",
    }.get(type(shape), "something else")
