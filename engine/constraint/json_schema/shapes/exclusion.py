"""What a shape leaves when another is taken out of it."""

from __future__ import annotations

from engine.constraint.json_schema.shapes.constants import merged, single
from engine.constraint.json_schema.shapes.meet import Meets
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
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


def without(meets: Meets, shape: Shape, excluded: Shape) -> Shape | None:
    """What matches a shape and certainly not another; None if that cannot be told."""
    included, other = meets.resolved(shape), meets.resolved(excluded)
    if included is None or other is None:
        return None
    if other == ANYTHING:
        return Nothing("what is excluded is everything")
    if meets.disjoint(included, other):
        return included
    if included == ANYTHING:
        included = any_of([Null(), Boolean(), Number(), String(), Array(), Object()])
    if isinstance(included, AnyOf):
        parts = [without(meets, option, other) for option in included.options]
        return None if None in parts else any_of([part for part in parts if part is not None])
    if isinstance(other, AnyOf):
        rest: Shape | None = included
        for option in other.options:
            rest = None if rest is None else without(meets, rest, option)
        return rest
    if other in (Null(), Boolean(), Number(), String(), Array(), Object()) and type(included) is type(other):
        return Nothing("its type is excluded")
    match included, other:
        case Boolean(value), Boolean(value=bool(second)):
            return Nothing() if value == second else Boolean(not second)
        case (String(), String()) | (Number(), Number()):
            return _without_values(meets, included, other)
        case Object(), Object():
            return _without_properties(meets, included, other)
    return None


def _without_values(meets: Meets, included: Shape, excluded: Shape) -> Shape | None:
    if not isinstance(included, String | Number) or included.values is None:
        return None
    allowed = [v for v in included.values if isinstance(meets.meet(single(v), excluded), Nothing)]
    return merged(list(map(single, allowed))) if allowed else Nothing("all of its values are excluded")


def _without_properties(meets: Meets, included: Object, excluded: Object) -> Shape | None:
    """An object differs from another in one property at least."""
    if excluded.patterns or excluded.additional is not None or excluded.least or excluded.most is not None:
        return None
    options: list[Shape] = []
    for name in dict.fromkeys((*(name for name, _ in excluded.properties), *excluded.required)):
        if name in excluded.required:
            options.append(meets.meet(included, Object(properties=((name, Nothing()),))))
        condition = meets.property(excluded, name)
        if condition != ANYTHING:
            other = without(meets, meets.property(included, name), condition)
            if other is None:
                return None
            options.append(meets.meet(included, Object(properties=((name, other),), required=(name,))))
    return any_of(options)
