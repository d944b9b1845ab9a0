"""Schemas as tools really write them, each with a value that is valid and one that is not.

All are made up for these tests, in the forms that the generators are known for. What is not enforced has the
words of the refusal instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NONE = object()  # no such value


class Case(NamedTuple):
    schema: Any
    valid: Any = NONE
    invalid: Any = NONE
    refused: str = ""


S: dict[str, Any] = {"type": "string"}
I: dict[str, Any] = {"type": "integer"}  # noqa: E741
N: dict[str, Any] = {"type": "number"}
B: dict[str, Any] = {"type": "boolean"}
NULL: dict[str, Any] = {"type": "null"}


def ref(name: str, where: str = "$defs") -> dict[str, Any]:
    return {"$ref": f"#/{where}/{name}"}


def titled(shape: dict[str, Any], title: str, **more: Any) -> dict[str, Any]:
    return {**shape, "title": title, **more}


def obj(required: str = "", more: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    """An object. required: names, with spaces between."""
    actual: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        actual["required"] = required.split()
    return {**actual, **(more or {})}


def shut(required: str = "", more: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    """An object that says itself that it has no other properties."""
    return {**obj(required, more, **properties), "additionalProperties": False}


def array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def enum(*values: Any, **more: Any) -> dict[str, Any]:
    return {"enum": list(values), **more}


def one_string(value: str) -> dict[str, Any]:
    return {"type": "string", "const": value}
