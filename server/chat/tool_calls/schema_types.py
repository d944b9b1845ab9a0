"""The types of JSON values that a schema allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 8
MAX_NESTING = 64
ALL_TYPES = frozenset(("string", "number", "boolean", "null", "object", "array"))
# What keywords hold, where it matters to what reads them.
_FORMS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), dict),
    **dict.fromkeys(("required", "enum", "anyOf", "oneOf"), list),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), int),
    "type": (str, list),
    "$ref": str,
}
_PLAIN = {"type", "anyOf", "title", "description", "default", "examples"}


def json_types(schema: Any, depth: int = 0) -> frozenset[str] | None:
    """Names of types, where integers are numbers; None: any type, or unknown."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    listed = schema.get("type")
    if isinstance(listed, str):
        listed = [listed]
    if isinstance(listed, list):
        return frozenset("number" if name == "integer" else str(name) for name in listed)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        return frozenset(_type_of(value) for value in values)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            branches = [json_types(branch, depth + 1) for branch in schema[key]]
            if None in branches:
                return None
            return frozenset().union(*(branch for branch in branches if branch is not None))
    return None


def fault_of(schema: Any, depth: int = 0) -> str | None:
    """What is wrong with the form of a schema; None: nothing, so its readers can rely on the form."""
    if not isinstance(schema, Mapping):
        return None
    if depth > MAX_NESTING:
        return "is nested too deeply"
    for name, expected in _FORMS.items():
        value = schema.get(name)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            return f"has a value of the wrong type for {name!r}"
    if not all(isinstance(name, str) for name in schema.get("required") or ()):
        return "has a value of the wrong type in 'required'"
    parts = [schema.get("items"), schema.get("additionalProperties")]
    for name in ("anyOf", "oneOf"):
        parts += schema.get(name) or ()
    for name in ("properties", "$defs", "definitions"):
        parts += (schema.get(name) or {}).values()
    return next(filter(None, (fault_of(part, depth + 1) for part in parts)), None)


def allows_only_text(schema: Any) -> bool:
    """Whether the schema allows only strings and does not combine other schemas."""
    return (
        isinstance(schema, Mapping)
        and json_types(schema) == frozenset(("string",))
        and bool(schema.keys() & {"type", "const", "enum"})
    )


def allows_text_or_null(schema: Any) -> bool:
    """Whether the schema allows any string or null, as clients write optional arguments."""
    if not isinstance(schema, Mapping) or json_types(schema) != frozenset(("string", "null")):
        return False
    branches = schema.get("anyOf") or [schema]
    return all(branch.keys() <= _PLAIN for branch in (*branches, {**schema, "anyOf": None}) if branch)


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case list():
            return "array"
        case Mapping():
            return "object"
    return "number"
