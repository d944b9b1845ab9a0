"""The keywords of each type: numbers, strings, arrays and objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from engine.constraint.json_schema.reading.document import Document
from engine.constraint.json_schema.shapes import names
from engine.constraint.json_schema.shapes.formats import FORMATS
from engine.constraint.json_schema.shapes.meet import Meets, checked, checked_number, checked_string
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
    AnyOf,
    Array,
    Nothing,
    Number,
    Object,
    Shape,
    String,
)
from engine.exact_json import number


class Keywords(Document):
    """meets: for names that several keywords speak of."""

    meets: Meets

    def _number(self, node: Mapping[str, Any], *, integer: bool = False) -> Shape:
        low, low_open = self._bound(node, "minimum", "exclusiveMinimum", max)
        high, high_open = self._bound(node, "maximum", "exclusiveMaximum", min)
        multiples: tuple[Decimal, ...] = ()
        if "multipleOf" in node:
            multiple = number(node["multipleOf"])
            if multiple is None or multiple <= 0:
                raise self._wrong("multipleOf must be a positive number")
            self._limits.note_multiple(multiple)
            multiples = (multiple,)
        return checked_number(Number(integer, low, low_open, high, high_open, multiples))

    def _bound(
        self, node: Mapping[str, Any], name: str, exclusive: str, tighter: Callable[..., Decimal]
    ) -> tuple[Decimal | None, bool]:
        closed, open = self._numeric(node, name), node.get(exclusive)
        if isinstance(open, bool):  # Draft 4
            return closed, open and closed is not None
        limit = self._numeric(node, exclusive)
        if closed is None or limit is None:
            return (closed, False) if limit is None else (limit, True)
        return tighter(closed, limit), tighter(closed, limit) == limit

    def _string(self, node: Mapping[str, Any]) -> Shape:
        format = node.get("format")
        if isinstance(format, str) and format not in FORMATS:
            self.ignored[f"format {format[:32]!r}"] = None
            format = None
        return checked_string(
            String(
                self._count(node, "minLength") or 0,
                self._count(node, "maxLength"),
                self._patterns(node),
                (format,) if isinstance(format, str) else (),
                where=self._where(),
            )
        )

    def _patterns(self, node: Mapping[str, Any]) -> tuple[str, ...]:
        if "pattern" not in node:
            return ()
        pattern = self._text(node, "pattern")
        known = "enum" in node or "const" in node  # values, which are tried
        fault = names.text_fault(pattern) if known else names.fault(pattern)
        if "not supported" in fault and not self._lenient:
            return (pattern,)  # refused by the writer, unless allOf or $ref bring in values
        return () if self._leave_out(pattern, fault) else (pattern,)

    def _leave_out(self, pattern: str, fault: str) -> bool:
        """Whether a pattern is not enforced, which `ignored` then says. Raises ConfigError if it must be."""
        if not fault:
            return False
        if not self._lenient or "not supported" not in fault:
            raise self._wrong(f"the pattern {names.shown(pattern)} cannot be enforced: {fault}")
        self.ignored[f"pattern {names.shown(pattern)}"] = None
        return True

    def _array(self, node: Mapping[str, Any]) -> Shape:
        prefix, items = node.get("prefixItems", []), node.get("items")
        items_at = "items"
        if isinstance(items, list):  # before Draft 2020-12
            prefix, items, items_at = items, node.get("additionalItems"), "additionalItems"
        if not isinstance(prefix, list):
            raise self._wrong("prefixItems must be a list")
        if "contains" in node:
            if node.get("minContains") != 0:
                self._refuse("contains")
            elif "maxContains" in node:
                self._refuse("maxContains")
        least, most = self._count(node, "minItems") or 0, self._count(node, "maxItems")
        if most is not None and least > most:
            return Nothing(f"minItems {least} is more than maxItems {most}")
        return Array(
            tuple(self._under("prefixItems", i, item) for i, item in enumerate(prefix)),
            None if items is None else self._under(items_at, None, items),
            least,
            most,
            node.get("uniqueItems") is True,
            self._where() if node.get("uniqueItems") is True else "",
        )

    def _object(self, node: Mapping[str, Any]) -> Shape:
        properties = {
            name: self._under("properties", name, value)
            for name, value in self._map(node, "properties").items()
        }
        patterns = {
            name: self._under("patternProperties", name, value)
            for name, value in self._map(node, "patternProperties").items()
            if not self._leaves_out_key("patternProperties", name)
        }
        self._limits.count_properties(len(properties))
        required = node.get("required", [])
        if isinstance(required, bool):  # Draft 3, where it belongs to a property
            required = []
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise self._wrong("required must be a list of strings")
        rest = "additionalProperties"
        if rest not in node and "propertyNames" in node:  # which will speak of all names
            rest = "unevaluatedProperties"
        additional = node.get(rest)
        shape = Object(
            tuple(properties.items()),
            tuple(dict.fromkeys(required)),
            tuple(patterns.items()),
            None if additional is None else self._under(rest, None, additional),
            self._count(node, "minProperties") or 0,
            self._count(node, "maxProperties"),
            "properties" in node,
        )
        # A name that is listed and matches a pattern is under both.
        shape = replace(
            shape,
            properties=tuple(
                (name, self._with_patterns(name, value, patterns)) for name, value in shape.properties
            ),
        )
        if "propertyNames" in node:
            with self._at("propertyNames"):
                shape = self._named(shape, self._schema(node["propertyNames"]))
        return checked(self._enumerated(shape))

    def _leaves_out_key(self, keyword: str, pattern: str) -> bool:
        with self._at(keyword):
            return self._leave_out(pattern, names.key_fault(pattern))

    def _with_patterns(self, name: str, shape: Shape, patterns: Mapping[str, Shape]) -> Shape:
        for pattern, value in patterns.items():
            if names.matches(pattern, name):
                shape = self.meets.meet(shape, value)
        return shape

    def _named(self, shape: Object, name: Shape) -> Object:
        """An object whose names match a shape."""
        names_shape = self.meets.resolved(self.meets.meet(String(), name))
        if isinstance(names_shape, AnyOf) and all(
            isinstance(o, String) and o.values for o in names_shape.options
        ):
            names_shape = String(
                values=tuple(v for o in names_shape.options if isinstance(o, String) for v in o.values or ())
            )
        if names_shape == String():
            return shape
        if isinstance(names_shape, Nothing):
            return replace(shape, properties=(), patterns=(), additional=Nothing())
        if isinstance(names_shape, String) and names_shape.values is not None:
            listed = [name for name, _ in shape.properties if name in names_shape.values]
            listed += [name for name in names_shape.values if name not in listed]
            return replace(
                shape,
                properties=tuple((name, self.meets.property(shape, name)) for name in listed),
                patterns=(),
                additional=Nothing(),
            )
        if isinstance(names_shape, String) and not names_shape.formats and not shape.patterns:
            patterns = [p for p in names_shape.patterns if not self._leave_out(p, names.key_fault(p))]
            if names_shape.least or names_shape.most is not None:
                patterns.append(
                    rf"^[\s\S]{{{names_shape.least},{'' if names_shape.most is None else names_shape.most}}}$"
                )
            if not patterns:
                return shape
            if len(patterns) == 1:
                return replace(
                    shape,
                    properties=tuple((n, s) for n, s in shape.properties if names.matches(patterns[0], n)),
                    patterns=((patterns[0], shape.additional or ANYTHING),),
                    additional=Nothing(),
                )
        self._refuse("propertyNames", "other than a list of names or one pattern")
        return shape

    @staticmethod
    def _enumerated(shape: Object) -> Object:
        """With the names of patterns that match only a few as properties of their own."""
        properties, patterns = dict(shape.properties), []
        for i, (pattern, value) in enumerate(shape.patterns):
            names_listed = names.listed(pattern)
            others = [*shape.patterns[:i], *shape.patterns[i + 1 :]]
            if names_listed is None or any(
                names.matches(other, name) for other, _ in others for name in names_listed
            ):
                patterns.append((pattern, value))
            else:
                properties |= {name: value for name in names_listed if name not in properties}
        return replace(shape, properties=tuple(properties.items()), patterns=tuple(patterns))
