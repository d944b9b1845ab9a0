"""Strict JSON schemas: `additionalProperties: false` for the objects of a schema.

The standard allows additional properties wherever a schema lists some. Clients hardly ever mean that, and a
small model may then add properties without end. Whatever the strict schema accepts, the original accepts too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SCHEMAS = ("items", "additionalProperties", "then", "else", "contains")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_OPEN = frozenset(("additionalProperties", "unevaluatedProperties", "patternProperties"))
_JOINED = frozenset(("anyOf", "$ref", "if", "dependentSchemas"))


def forbid_additional_properties(schema: Any) -> Any:
    """The schema with `additionalProperties: false` where it lists properties and says nothing of others.

    A schema that describes one object in several places is returned unchanged: each place would forbid what
    the others list, or decide which alternative of `oneOf` matches. Raises RecursionError for one that is
    nested too deeply.
    """
    return schema if any(map(_joins, _nodes(schema))) else _closed(schema)


def _joins(node: Mapping[str, Any]) -> bool:
    return "allOf" in node or "oneOf" in node or ("properties" in node and bool(_JOINED & node.keys()))


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each key whose value holds schemas, and that value."""
    for keys, kind in ((_SCHEMAS, object), (_LISTS, list), (_MAPS, Mapping)):
        yield from ((key, node[key]) for key in keys if isinstance(node.get(key), kind) and key in node)


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    todo = [schema]
    while todo:
        node = todo.pop()
        if not isinstance(node, Mapping):
            continue
        yield node
        for key, value in _children(node):
            todo += value if key in _LISTS else value.values() if key in _MAPS else [value]


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for key, value in _children(schema):
        if key in _LISTS:
            closed[key] = [_closed(item) for item in value]
        elif key in _MAPS:
            closed[key] = {name: _closed(item) for name, item in value.items()}
        else:
            closed[key] = _closed(value)
    properties = closed.get("properties")
    if isinstance(properties, Mapping) and not _OPEN & closed.keys() and _lists_required(closed, properties):
        closed["additionalProperties"] = False
    return closed


def _lists_required(node: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    required = node.get("required", [])
    return isinstance(required, list) and all(isinstance(n, str) and n in properties for n in required)
