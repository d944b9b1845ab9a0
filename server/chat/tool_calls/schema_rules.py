"""Grammar rules for values of a JSON schema that are not written in JSON syntax."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from engine.constraint.compiler import MAX_BYTES
from engine.constraint.json_schema import exclusive
from engine.errors import ConfigError
from engine.exact_json import dumps
from server.chat.request import Tool
from server.chat.tool_calls.grammar import GrammarTerminals, quoted, repeated
from server.chat.tool_calls.schema_types import fault_of, json_types
from server.chat.tool_calls.tool_call_format import UnsupportedSchema, schema_rule

MAX_DEPTH = 32
MAX_BRANCHES = 64  # of oneOf, each of which is compared to each
MAX_VALUES = 4096  # of all schemas in the schema of a tool
_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions"}
# The keywords that are enforced, by type.
_KEYWORDS = {
    "string": {"minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
}


class SchemaRules(ABC):
    """Collects the rules for the arguments of one tool; their names begin with `prefix`."""

    def __init__(self, prefix: str, tool: Tool, terminals: GrammarTerminals) -> None:
        self.prefix, self.tool, self.terminals = prefix, tool, terminals
        self.rules: list[str] = []
        self._references: dict[str, str] = {}  # names of rules, by path
        self._targets: dict[str, Any] = {}  # schemas, by path
        self._alternatives: list[Sequence[Any]] = []  # the branches of each oneOf
        self._depth = self._n_values = self._n_chars = 0
        self._has_any = False  # the rule of any value is written

    def arguments(self) -> str:
        """The name of a rule that matches all arguments."""
        if fault := fault_of(self.tool.schema):
            raise self.unsupported(fault)
        self._check_keywords(self.tool.schema, {"object"})
        name = self.add(self.pairs(self._pairs(self.tool.schema)))
        if self._alternatives:
            self._check_exclusive()
        return name

    def add(self, expression: str) -> str:
        """Add a rule and return its name."""
        name = f"{self.prefix}_{len(self.rules)}"
        self._count(expression)
        self.rules.append(f"{name}: {expression}")
        return name

    def value(self, schema: Any) -> str:
        """An expression that matches the valid values. Raises UnsupportedSchema."""
        self._depth += 1
        self._n_values += 1
        if self._depth > MAX_DEPTH or self._n_values > MAX_VALUES:
            raise self.unsupported("is nested too deeply or too large")
        expression = self._value(schema if isinstance(schema, Mapping) else {})
        self._count(expression)
        self._depth -= 1
        return expression

    def _count(self, expression: str) -> None:
        """Count the length: names and values of a schema may be long, and references repeat them."""
        self._n_chars += len(expression)
        if self._n_chars > MAX_BYTES:
            raise self.unsupported("is too large")

    def _value(self, schema: Mapping[str, Any]) -> str:
        if schema.get("$ref") is not None:
            return self.reference(schema)
        for key in ("anyOf", "oneOf"):
            if schema.get(key) is not None:
                self._check_keywords(schema, set(), key)
                if key == "oneOf":
                    self._alternatives.append(schema[key])
                return self._any_of([self.value(branch) for branch in schema[key]])
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None:
            return self._any_of([self.literal(value) for value in values])
        types = json_types(schema)
        if types is None:
            self._check_keywords(schema, set())
            return self.anything()
        self._check_keywords(schema, types)
        return self._any_of([self._of_type(name, schema) for name in sorted(types)])

    def _check_exclusive(self) -> None:
        """Refuse branches of oneOf that may match the same value. All at once, which bounds the work."""
        small = all(len(branches) <= MAX_BRANCHES for branches in self._alternatives)
        try:
            if small and exclusive(self._alternatives, self.tool.schema):
                return
        except ConfigError as error:
            raise self.unsupported(f"is not supported ({error})") from None
        raise self.unsupported("has a oneOf of which more than one branch may match; use anyOf")

    def _of_type(self, name: str, schema: Mapping[str, Any]) -> str:
        match name:
            case "string":
                return self.text(schema.get("minLength"), schema.get("maxLength"))
            case "number":
                integral = "number" not in schema["type"]  # a name or a list of names
                bounds = {key: schema[key] for key in _KEYWORDS["number"] if key in schema}
                return self.scalar({"type": "integer" if integral else "number", **bounds})
            case "boolean":
                return self._any_of([self.literal(True), self.literal(False)])
            case "null":
                return self.literal(None)
            case "array":
                item = self.value(schema.get("items"))
                return self.items(item, schema.get("minItems") or 0, schema.get("maxItems"))
            case "object":
                return self._object(schema)
        raise self.unsupported(f"has the unknown type {name!r}")

    def _object(self, schema: Mapping[str, Any]) -> str:
        pairs, others = self._pairs(schema), schema.get("additionalProperties")
        if pairs or others is False:
            return self.object(pairs)
        return self.map_of(self.value(others)) if others and others is not True else self.any_object()

    def _pairs(self, schema: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """An expression for each pair, in order, and whether the pair is required."""
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        if unknown := [name for name in required if name not in properties]:
            raise self.unsupported(f"requires {unknown[0]!r}, which it does not describe")
        return [
            (self.pair(name, self.value(properties[name])), name in required)
            for name in self.order(properties)
        ]

    def reference(self, schema: Mapping[str, Any]) -> str:
        path = schema["$ref"]
        if path not in self._references:
            target = self.resolved(path)
            name = self._references[path] = f"{self.prefix}_ref{len(self._references)}"
            self.rules.append(f"{name}: {self.value(target)}")
        return self._references[path]

    def resolved(self, path: str) -> Any:
        """The schema that a reference points to."""
        if path in self._targets:
            return self._targets[path]
        target: Any = self.tool.schema
        for part in path.removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        if target is None:
            raise self.unsupported(f"has the unknown reference {path!r}")
        if fault := fault_of(target):
            raise self.unsupported(fault)
        self._targets[path] = target
        return target

    def _any_of(self, expressions: Sequence[str]) -> str:
        if not expressions:
            raise self.unsupported("allows no value")
        return expressions[0] if len(expressions) == 1 else f"({' | '.join(expressions)})"

    def _check_keywords(
        self, schema: Mapping[str, Any], types: Sequence[str] | frozenset[str] | set[str], *more: str
    ) -> None:
        known = _ANNOTATIONS.union({"type"}, more, *(_KEYWORDS.get(name, ()) for name in types))
        if unknown := sorted(schema.keys() - known):
            raise self.unsupported(f"has the unsupported keyword {unknown[0]!r}")

    def unsupported(self, reason: str) -> UnsupportedSchema:
        return UnsupportedSchema(f"the schema of '{self.tool.name}' {reason}")

    def text_before(self, marker: str, shortest: int | None, longest: int | None) -> str:
        """Text of a bounded length, and the marker that ends it."""
        text = f"/(?s:.){repeated(shortest, longest)}/"
        if marker in self.terminals.tokens:  # which no text contains
            return f"{text} {self.terminals(marker)}"
        name = f"{self.prefix}_text{len(self.rules)}"
        self.rules.append(f"{name}[lazy]: {text} {quoted(marker)}")
        return name

    # --- the syntax

    def scalar(self, schema: Mapping[str, Any]) -> str:
        """A number."""
        return schema_rule(schema, self.tool)

    def order(self, properties: Mapping[str, Any]) -> list[str]:
        """The order in which the properties of an object are written."""
        return list(properties)

    def pair(self, name: str, value: str) -> str:
        """A key and its value. Raises UnsupportedSchema."""
        return f"{self.key(name)} {value}"

    @abstractmethod
    def key(self, name: str) -> str:
        """A key and what follows it. Raises UnsupportedSchema."""

    @abstractmethod
    def text(self, shortest: int | None, longest: int | None) -> str: ...

    @abstractmethod
    def literal(self, value: Any) -> str: ...

    @abstractmethod
    def pairs(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """Pairs without their enclosing brackets; True: the pair is required."""

    @abstractmethod
    def object(self, pairs: Sequence[tuple[str, bool]]) -> str: ...

    @abstractmethod
    def any_object(self) -> str: ...

    def map_of(self, value: str) -> str:
        """An object with any keys and such values. Raises UnsupportedSchema."""
        raise self.unsupported("has the unsupported keyword 'additionalProperties' with a schema")

    @abstractmethod
    def items(self, item: str, shortest: int, longest: int | None) -> str: ...

    @abstractmethod
    def anything(self) -> str: ...


class BracketRules(SchemaRules):
    """Objects in braces and lists in brackets, as in JSON, but with other strings, words or keys."""

    comma = ", "
    words: tuple[tuple[str, ...], ...] = (("true",), ("false",), ("null",))  # by any of these names

    def literal(self, value: Any) -> str:
        if isinstance(value, str):
            return self.text_literal(value)
        if isinstance(value, dict | list):
            raise self.unsupported("has an enumeration of objects or lists")
        if value is None or isinstance(value, bool):
            names = self.words[2 if value is None else int(not value)]
            return self._any_of([self.terminals(name) for name in names])
        return self.terminals(dumps(value))

    @abstractmethod
    def text_literal(self, value: str) -> str: ...

    @abstractmethod
    def any_key(self) -> str: ...

    def pairs(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """Two rules for each pair: `rest` after another pair, `first` if there was none."""
        rest = first = ""
        comma = self.terminals(self.comma)
        for pair, required in reversed(pairs):
            own = self.add(pair)
            after_none = self.add(f"{own} {rest}" if required else self._either(f"{own} {rest}", first))
            after_some = self.add(
                f"{comma} {own} {rest}" if required else self._either(f"{comma} {own} {rest}", rest)
            )
            rest, first = after_some, after_none
        return first

    def _either(self, some: str, other: str) -> str:
        return f"{some} | {other}" if other else f"({some})?"

    def object(self, pairs: Sequence[tuple[str, bool]]) -> str:
        return f"{self.terminals('{')} {self.pairs(pairs)} {self.terminals('}')}"

    def any_object(self) -> str:
        self.anything()
        return f"{self.prefix}_object"

    def map_of(self, value: str) -> str:
        pair, comma = f"{self.any_key()} {self.add(value)}", self.terminals(self.comma)
        return f"{self.terminals('{')} ({pair} ({comma} {pair})*)? {self.terminals('}')}"

    def items(self, item: str, shortest: int, longest: int | None) -> str:
        item = self.add(item)
        more = f"({self.terminals(self.comma)} {item})"
        some = f"{item} {more}{repeated(max(shortest - 1, 0), longest and max(longest - 1, 0))}"
        inside = "" if longest == 0 else some if shortest else f"({some})?"
        return f"{self.terminals('[')} {inside} {self.terminals(']')}"

    def anything(self) -> str:
        name = f"{self.prefix}_any"
        if not self._has_any:
            self._has_any = True
            self.rules.append(f"{name}: {self.prefix}_object | {self.prefix}_items | {self.prefix}_scalar")
            words = " | ".join(map(self.literal, (True, False, None)))
            number = self.scalar({"type": "number"})
            self.rules += [
                f"{self.prefix}_scalar: {words} | {number} | {self.text(None, None)}",
                f"{self.prefix}_items: {self.items(name, 0, None)}",
                f"{self.prefix}_object: {self.map_of(name)}",
            ]
        return name
