"""Which shapes anything matches: a grammar must not begin what it cannot end."""

from __future__ import annotations

from engine.constraint.json_schema.shapes import names
from engine.constraint.json_schema.shapes.meet import Meets
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
    AnyOf,
    Array,
    Nothing,
    Number,
    Object,
    Reference,
    Shape,
    String,
)
from engine.constraint.json_schema.writing import digits
from engine.constraint.json_schema.writing.scalars import string_matches


class Fruitful:
    """closed: objects that list properties have no others (see `engine.constraint.json_schema.closed`)."""

    def __init__(self, meets: Meets, *, closed: bool) -> None:
        self._meets, self._closed = meets, closed
        self._known: dict[Reference, bool] = {}

    def look_at(self, root: Shape) -> None:
        """Which references something matches: those that can be shown to, with the others' help."""
        todo, seen = [root], set()
        while todo:
            shape = todo.pop()
            if isinstance(shape, Reference):
                if shape in self._known:
                    continue
                self._known[shape] = False
                todo.append(self.target(shape))
            elif shape not in seen:
                seen.add(shape)
                todo += _inside(shape)
        changed = True
        while changed:
            changed = False
            for reference, known in list(self._known.items()):
                if not known and self.can_match(self.target(reference)):
                    self._known[reference] = changed = True

    def target(self, reference: Reference) -> Shape:
        return self._meets.resolved(reference) or Nothing("a reference leads to itself")

    def can_match(self, shape: Shape) -> bool:
        match shape:
            case Reference():
                if shape not in self._known:
                    self.look_at(shape)
                return self._known[shape]
            case Nothing():
                return False
            case AnyOf(options):
                return any(map(self.can_match, options))
            case Array():
                return all(
                    self.can_match(shape.item(i)) for i in range(min(shape.least, len(shape.prefix) + 1))
                )
            case Object():
                return all(self.can_match(self._meets.property(shape, name)) for name in shape.required) and (
                    shape.least <= len(shape.required) or self._available(shape) >= shape.least
                )
            case Number(values=None) if shape.integer:
                first, last = digits.integer_bounds(shape.low, shape.low_open, shape.high, shape.high_open)
                return first is None or last is None or first <= last
            case String(values=None) if shape.patterns and (
                shape.most is not None or len(shape.patterns) > 1 or names.regex_fault(shape.patterns[0])
            ):
                return string_matches(shape)
        return True

    def _available(self, shape: Object) -> float:
        """How many properties there can be."""
        listed = sum(self.can_match(value) for _, value in shape.properties)
        listed += sum(name not in shape.by_name for name in shape.required)
        free = not self.is_closed(shape) and self.can_match(shape.additional or ANYTHING)
        return float("inf") if free or any(self.can_match(v) for _, v in shape.patterns) else listed

    def is_closed(self, shape: Object) -> bool:
        """Whether names are forbidden that are not spoken of (see `closed`)."""
        return (
            self._closed
            and shape.additional is None
            and shape.closable
            and not shape.patterns
            and all(name in shape.by_name for name in shape.required)
        )


def _inside(shape: Shape) -> list[Shape]:
    match shape:
        case AnyOf(options):
            return list(options)
        case Array():
            return [*shape.prefix, *([shape.items] if shape.items else [])]
        case Object():
            values = [value for group in (shape.properties, shape.patterns) for _, value in group]
            return [*values, *([shape.additional] if shape.additional else [])]
    return []
