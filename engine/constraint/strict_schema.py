"""JSON schemas without the properties that they do not speak of.

The standard allows any further property where a schema lists some. Hardly anybody means that who asks a
model for them, and a small model then never comes to an end. What is valid for the closed schema is valid for
the given one.
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
    """The schema without further properties wherever it lists some and does not speak of others.

    As it is, if an object is described in several places: each of them would forbid what the others list, or
    be all that `oneOf` finds.
    Raises RecursionError for one that is nested too deeply.
    """
    return schema if any(map(_joins, _nodes(schema))) else _closed(schema)


def _joins(node: Mapping[str, Any]) -> bool:
    return "allOf" in node or "oneOf" in node or ("properties" in node and bool(_JOINED & node.keys()))


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each key that holds schemas, and what it holds."""
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
    found = dict(schema)
    for key, value in _children(schema):
        if key in _LISTS:
            found[key] = [_closed(item) for item in value]
        elif key in _MAPS:
            found[key] = {name: _closed(item) for name, item in value.items()}
        else:
            found[key] = _closed(value)
    properties = found.get("properties")
    if isinstance(properties, Mapping) and not _OPEN & found.keys() and _lists_required(found, properties):
        found["additionalProperties"] = False
    return found


def _lists_required(node: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    required = node.get("required", [])
    return isinstance(required, list) and all(isinstance(n, str) and n in properties for n in required)
