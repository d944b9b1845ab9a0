"""From a JSON Schema to shapes: every keyword is taken into account, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any
from urllib.parse import unquote

from engine.constraint.json_schema.reading.keywords import Keywords
from engine.constraint.json_schema.reading.limits import MAX_DEPTH, Limits, kind
from engine.constraint.json_schema.shapes import exclusion
from engine.constraint.json_schema.shapes.constants import constant, merged
from engine.constraint.json_schema.shapes.meet import Meets
from engine.constraint.json_schema.shapes.types import (
    ANYTHING,
    AnyOf,
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

TYPES = ("null", "boolean", "number", "string", "array", "object")
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRING = ("minLength", "maxLength", "pattern", "format")
_ARRAY = ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains")
_OBJECT = (
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
)
_TYPED = {
    name: kind
    for kind, group in (("number", _NUMBER), ("string", _STRING), ("array", _ARRAY), ("object", _OBJECT))
    for name in group
}
# What other dialects have, which validators of JSON Schema do not look at.
_FOREIGN = frozenset(("nullable",))


class Reader(Keywords):
    """Reads one document. closed: a description of properties without a type is one of objects.

    lenient: what cannot be enforced is left out, and named in `ignored`.
    """

    def __init__(self, document: Mapping[str, Any], *, closed: bool, lenient: bool, coerce: bool) -> None:
        super().__init__(document, lenient=lenient)
        self.meets = Meets(self.resolve)
        self._closed, self._coerce = closed, coerce
        self._exact = False  # inside of a condition, which may not be read as narrower than it is
        self._shapes: dict[Reference, Shape | None] = {}

    def root(self) -> Shape:
        return self.resolve(Reference("")) or ANYTHING

    def exclusive(self, children: Sequence[Any]) -> bool:
        """Whether it is certain that what is written for one of these schemas matches no other."""
        written = [self._under("oneOf", i, child) for i, child in enumerate(children)]
        exact = [self._condition("oneOf", i, child) for i, child in enumerate(children)]
        return all(
            self.meets.disjoint(written[i], exact[j]) or self._leaves_out(written[i], exact[j])
            for i, j in permutations(range(len(children)), 2)
        )

    def _leaves_out(self, option: Shape, other: Shape) -> bool:
        """Whether an object is written without a property that the other must have, as it lists its own."""
        one, lacking = self.meets.resolved(option), self._lacking(option, other)
        if lacking is None or not isinstance(one, Object):
            return False
        return bool(one.properties) and one.additional is None and lacking not in one.by_name

    def resolve(self, reference: Reference) -> Shape | None:
        """What a reference stands for; None while it is being read."""
        if reference not in self._shapes:
            self._shapes[reference] = None
            key = reference.key
            if isinstance(key, Meet):
                one, other = self.meets.resolved(key.one), self.meets.resolved(key.other)
                if one is None or other is None:
                    del self._shapes[reference]
                    return None
                self._shapes[reference] = self.meets.meet(one, other)
            else:
                path, exact = self._path, self._exact
                self._path, self._exact = [key.removeprefix("/")] if key else [], reference.exact
                self._shapes[reference] = self._schema(self._target(key))
                self._path, self._exact = path, exact
        return self._shapes[reference]

    def _condition(self, keyword: str, name: int | None, child: Any) -> Shape:
        """What a schema matches exactly, also where `closed` means less."""
        before = self._exact, self._limits
        self._exact, self._limits = True, Limits()
        shape = self._under(keyword, name, child)
        self._exact, self._limits = before
        return shape

    # ** one schema **

    def _schema(self, node: Any, base: Shape = ANYTHING) -> Shape:
        """What a schema has in common with `base`, which tells conditions what values there are."""
        if isinstance(node, bool):
            return base if node else Nothing()
        if not isinstance(node, dict):
            raise self._wrong(f"a schema is an object, not {kind(node)}")
        if len(self._path) > MAX_DEPTH:
            raise ConfigError(f"the schema is nested deeper than {MAX_DEPTH}")
        shape = base
        for part in self._parts(node):
            shape = self.meets.meet(shape, part(node))
        for i, child in enumerate(node.get("allOf", [])):
            if _depends(child):
                with self._at("allOf", str(i)):
                    shape = self._schema(child, shape)
        if "oneOf" in node:
            shape = self._one_of(shape, self._list(node, "oneOf"))
        for name in ("if", "not"):
            if name in node:
                shape = self._negative(shape, node, name)
        for name in ("unevaluatedProperties", "unevaluatedItems"):
            if name in node:
                with self._at(name):
                    shape = self.meets.closed(shape, name, self._schema(node[name]))
        return shape

    def _parts(self, node: Mapping[str, Any]) -> list[Callable[[Mapping[str, Any]], Shape]]:
        """What reads the keywords, in the order in which they stand, which is that of the properties."""
        readers: dict[str, Callable[[Mapping[str, Any]], Shape]] = {
            "$ref": self._ref,
            "$recursiveRef": lambda node: self._ref({"$ref": node["$recursiveRef"]}),
            "const": lambda node: constant(node["const"]),
            "enum": self._enum,
            "allOf": self._all_of,
            "anyOf": self._any_of,
            "dependentRequired": self._dependent_required,
            "dependentSchemas": self._dependent_schemas,
            "dependencies": self._dependencies,
        }
        parts: list[Callable[[Mapping[str, Any]], Shape]] = []
        typed = False
        for name in node:
            if name in readers:
                parts.append(readers[name])
            elif (name in _TYPED or name == "type") and not typed:
                typed = True
                parts.append(self._typed)
            elif name in _FOREIGN and node[name]:
                self.ignored[name] = None
            elif name == "$dynamicRef":
                self._refuse(name)
        return parts

    def _typed(self, node: Mapping[str, Any]) -> Shape:
        types = node.get("type")
        if types is None:
            types = self._implied(node)
        elif isinstance(types, str):
            types = [types]
        elif not isinstance(types, list) or not all(isinstance(name, str) for name in types):
            raise self._wrong("type must be a string or a list of strings")
        readers: dict[str, Callable[[Mapping[str, Any]], Shape]] = {
            "null": lambda _: Null(),
            "boolean": lambda _: Boolean(),
            "integer": lambda node: self._number(node, integer=True),
            "number": self._number,
            "string": self._string,
            "array": self._array,
            "object": self._object,
        }
        unknown = next((name for name in types if name not in readers), None)
        if unknown is not None:
            raise self._wrong(f"type: {unknown[:32]!r} is not one of {', '.join(readers)}")
        if "number" in types:
            types = [name for name in types if name != "integer"]
        return any_of([readers[name](node) for name in types])

    def _implied(self, node: Mapping[str, Any]) -> Sequence[str]:
        """The types where none is named."""
        if not any(name in node for name in _TYPED):
            return TYPES
        combined = ("allOf", "anyOf", "oneOf", "$ref", "enum", "const", "if", "not")
        if self._closed and not self._exact and not any(name in node for name in combined):
            types = {_TYPED[name] for name in node if name in _TYPED}
            if types & {"object"} and "properties" in node:
                return ("object",)
            if types == {"array"} and "items" in node:
                return ("array",)
        return TYPES

    # ** what combines schemas **

    def _ref(self, node: Mapping[str, Any]) -> Shape:
        target = node["$ref"]
        if not isinstance(target, str):
            raise self._wrong("$ref must be a string")
        if not target.startswith("#"):
            known = self._find_anchor(target)
            if known is None:
                raise self._wrong(
                    f"$ref: only references inside of the schema are supported, not {target[:80]!r}"
                )
            return self._referred(target)
        return self._referred(unquote(target[1:]) if target != "#/" else "")

    def _referred(self, key: str) -> Shape:
        reference = Reference(key, self._exact)
        if reference not in self._shapes:
            self._target(key)
        return reference

    def _enum(self, node: Mapping[str, Any]) -> Shape:
        values = node["enum"]
        if not isinstance(values, list):
            raise self._wrong("enum must be a list")
        self._limits.count_values(len(values))
        return merged([constant(value) for value in values])

    def _all_of(self, node: Mapping[str, Any]) -> Shape:
        shape: Shape = ANYTHING
        for i, child in enumerate(self._list(node, "allOf")):
            if not _depends(child):
                shape = self.meets.meet(shape, self._under("allOf", i, child))
        return shape

    def _any_of(self, node: Mapping[str, Any]) -> Shape:
        return any_of([self._under("anyOf", i, child) for i, child in enumerate(self._list(node, "anyOf"))])

    def _one_of(self, base: Shape, children: list[Any]) -> Shape:
        """Exactly one of several: they must exclude each other, or be made to by what one of them lacks."""
        conditions = options = [self._under("oneOf", i, child) for i, child in enumerate(children)]
        if self._closed and not self._exact:
            conditions = [self._condition("oneOf", i, child) for i, child in enumerate(children)]
        options = [self.meets.meet(base, option) for option in options]
        exclusive = list(options)
        for i, option in enumerate(options):
            for j, other in enumerate(conditions):
                if i == j or self.meets.disjoint(exclusive[i], other):
                    continue
                lacking = self._lacking(option, other)
                if lacking is not None:
                    without = Object(properties=((lacking, Nothing(f"another branch has {lacking!r}")),))
                    exclusive[i] = self.meets.meet(exclusive[i], without)
                elif self._lenient or self._coerce:
                    self.ignored["oneOf, of which more than one branch may match"] = None
                else:
                    first, second = sorted((i, j))
                    raise self._wrong(
                        f"oneOf: branches {first} and {second} may match the same value; use anyOf, or tell "
                        "them apart by a required property with different constants"
                    )
        return any_of(exclusive)

    def _lacking(self, option: Shape, other: Shape) -> str | None:
        """A property that the other must have and the option need not."""
        one, alternative = self.meets.resolved(option), self.meets.resolved(other)
        objects = [
            o
            for o in (alternative.options if isinstance(alternative, AnyOf) else (alternative,))
            if isinstance(o, Object)
        ]
        if not isinstance(one, Object) or len(objects) != 1:
            return None
        (second,) = objects
        missing = [name for name in second.required if name not in one.required]
        return next((name for name in missing if name not in one.by_name), missing[0] if missing else None)

    def _negative(self, shape: Shape, node: Mapping[str, Any], name: str) -> Shape:
        if name == "if":
            branches = {key: self._under(key, None, node[key]) for key in ("then", "else") if key in node}
            if not branches:
                return shape
            condition = self._condition("if", None, node["if"])
            without = exclusion.without(self.meets, shape, condition)
            if without is None:
                self._refuse("if", "with a condition that is not about properties with a few known values")
                return shape
            return any_of(
                [
                    self.meets.meet(self.meets.meet(shape, condition), branches.get("then", ANYTHING)),
                    self.meets.meet(without, branches.get("else", ANYTHING)),
                ]
            )
        without = exclusion.without(self.meets, shape, self._condition("not", None, node["not"]))
        if without is None:
            self._refuse("not", "but for types, constants and required properties")
            return shape
        return without

    def _dependent_required(self, node: Mapping[str, Any]) -> Shape:
        shape: Shape = ANYTHING
        for name, needed in self._map(node, "dependentRequired").items():
            if not isinstance(needed, list) or not all(isinstance(n, str) for n in needed):
                raise self._wrong("dependentRequired must hold lists of strings")
            shape = self._dependent(shape, name, Object(required=tuple(dict.fromkeys(needed))))
        return shape

    def _dependent_schemas(self, node: Mapping[str, Any], key: str = "dependentSchemas") -> Shape:
        shape: Shape = ANYTHING
        for name, child in self._map(node, key).items():
            shape = self._dependent(shape, name, self._under(key, name, child))
        return shape

    def _dependencies(self, node: Mapping[str, Any]) -> Shape:
        """Draft 7 has both under one name."""
        named = self._map(node, "dependencies")
        lists = {name: value for name, value in named.items() if isinstance(value, list)}
        return self.meets.meet(
            self._dependent_required({"dependentRequired": lists}),
            self._dependent_schemas(
                {"dependencies": {n: v for n, v in named.items() if n not in lists}}, "dependencies"
            ),
        )

    def _dependent(self, shape: Shape, name: str, then: Shape) -> Shape:
        absent = Object(properties=((name, Nothing(f"what {name!r} needs is missing")),))
        present = self.meets.meet(Object(required=(name,)), then)
        others: list[Shape] = [Null(), Boolean(), Number(), String(), Array()]
        return self.meets.meet(shape, any_of([absent, present, *others]))


def _depends(node: Any) -> bool:
    """Whether a schema of allOf is easier to read with what stands beside it."""
    return (
        isinstance(node, dict)
        and not node.keys().isdisjoint(("if", "not", "oneOf"))
        and node.keys().isdisjoint(("unevaluatedProperties", "unevaluatedItems"))
    )
