"""What a JSON value may be: the form that schemas are brought into before they become grammars.

All shapes are immutable and compare by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TypeAlias


@dataclass(frozen=True)
class Anything:
    """Every value."""


@dataclass(frozen=True)
class Nothing:
    """No value. reason: for errors; it does not matter when shapes are compared."""

    reason: str = field(default="the schema is false", compare=False)


@dataclass(frozen=True)
class Null:
    """`null`."""


@dataclass(frozen=True)
class Boolean:
    """value: the only one; None for both."""

    value: bool | None = None


@dataclass(frozen=True)
class Number:
    """values: the only ones, if not None; bounds and multiples hold for them already."""

    integer: bool = False
    low: Decimal | None = None
    low_open: bool = False  # whether `low` itself is excluded
    high: Decimal | None = None
    high_open: bool = False
    multiples: tuple[Decimal, ...] = ()
    values: tuple[Decimal, ...] | None = None

    def holds(self, value: Decimal) -> bool:
        """Whether bounds, multiples and `integer` allow a value."""
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        if self.high is not None and (value > self.high or (self.high_open and value == self.high)):
            return False
        if self.integer and value != value.to_integral_value():
            return False
        return all(value % multiple == 0 for multiple in self.multiples)


@dataclass(frozen=True)
class String:
    """values: the only ones, if not None. Lengths are in characters. where: of the patterns, for errors."""

    least: int = 0
    most: int | None = None
    patterns: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    values: tuple[str, ...] | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Array:
    """items: of those behind `prefix`; None: not spoken of. distinct: no two are equal; `where` says so."""

    prefix: tuple[Shape, ...] = ()
    items: Shape | None = None
    least: int = 0
    most: int | None = None
    distinct: bool = False
    where: str = field(default="", compare=False)

    def item(self, i: int) -> Shape:
        """What the item at an index may be."""
        return self.prefix[i] if i < len(self.prefix) else self.items or ANYTHING


@dataclass(frozen=True)
class Object:
    """additional: of names that neither `properties` nor `patterns` have; None: not spoken of.

    least, most: how many properties there are. closable: whether a schema lists properties, be it none
    (see `json_schema.closed`).
    """

    properties: tuple[tuple[str, Shape], ...] = ()
    required: tuple[str, ...] = ()
    patterns: tuple[tuple[str, Shape], ...] = ()
    additional: Shape | None = None
    least: int = 0
    most: int | None = None
    closable: bool = False

    @cached_property
    def by_name(self) -> Mapping[str, Shape]:
        return dict(self.properties)


@dataclass(frozen=True)
class AnyOf:
    """At least two."""

    options: tuple[Shape, ...]


@dataclass(frozen=True)
class Meet:
    """What two shapes have in common, still to be found out: one of them is being read."""

    one: Shape
    other: Shape


@dataclass(frozen=True)
class Reference:
    """key: a JSON pointer into the schema, or a `Meet`. exact: see `Reader`."""

    key: str | Meet
    exact: bool = False


Shape: TypeAlias = Anything | Nothing | Null | Boolean | Number | String | Array | Object | AnyOf | Reference
ANYTHING = Anything()
SCALARS: tuple[Shape, ...] = (Null(), Boolean(), Number(), String())


def any_of(options: list[Shape]) -> Shape:
    """One of several; those that nothing matches, and those that are there twice, are left out."""
    flat: dict[Shape, None] = {}
    reason: Shape = Nothing("there are no options")
    for option in options:
        if isinstance(option, Anything):
            return option
        if isinstance(option, Nothing):
            reason = option
        else:
            flat |= dict.fromkeys(option.options if isinstance(option, AnyOf) else (option,))
    if not flat:
        return reason
    return AnyOf(tuple(flat)) if len(flat) > 1 else next(iter(flat))
