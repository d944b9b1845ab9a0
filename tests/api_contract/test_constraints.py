"""Wherever an answer can be held to something, what cannot be compiled is refused: never is it left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.api.routes import GENERATING, Ask, Route, able_engine, asking, refusal

Schema = dict[str, Any]
BAD: list[Schema] = [
    {"enum": []},
    {"type": "string", "pattern": "("},
    {"$ref": "#/$defs/none"},
]
GOOD: Schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def function(schema: Schema) -> Schema:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


# Field → what it is for a schema, and the fields that must come along.
WAYS: dict[str, list[Callable[[Schema], Schema]]] = {
    "response_format": [
        lambda schema: {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        },
        lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
    ],
    "json_schema": [lambda schema: {"json_schema": schema}],
    "guided_json": [lambda schema: {"guided_json": schema}],
    "structured_outputs": [lambda schema: {"structured_outputs": {"json": schema}}],
    "text": [lambda schema: {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}],
    "output_config": [
        lambda schema: {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    ],
    "format": [lambda schema: {"format": schema}],
}
TOOLS: dict[str, Callable[[Schema], Schema]] = {
    "/v1/chat/completions": lambda schema: {"tools": [function(schema)], "tool_choice": "required"},
    "/api/chat": lambda schema: {"tools": [function(schema)], "tool_choice": "required"},
    "/v1/responses": lambda schema: {
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "tool_choice": "required",
    },
    "/v1/messages": lambda schema: {
        "tools": [{"name": "f", "input_schema": schema}],
        "tool_choice": {"type": "any"},
    },
}


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking(able_engine(n_ctx=4096)) as asker:
        yield asker


def ways(route: Route) -> list[Callable[[Schema], Schema]]:
    actual = [way for field in WAYS if field in route.fields for way in WAYS[field]]
    if "tools" in route.fields:
        actual.append(TOOLS[route.path])
    return actual


@pytest.mark.parametrize("route", GENERATING, ids=str)
def test_schemas_are_enforced_or_refused(route: Route, ask: Ask) -> None:
    assert ways(route)
    for way in ways(route):
        ask.forget()
        response = ask(route, {**route.body(), **way(GOOD)})
        assert response.status_code == 200, response.text
        assert ask.engine.seen[0].constraint is not None
        ask.forget()
        for schema in BAD:
            fields = way(schema)
            error = refusal(ask(route, {**route.body(), **fields}), route)
            assert error["param"].startswith(next(iter(fields))), error
        assert ask.work == []


@pytest.mark.parametrize("route", [route for route in GENERATING if "grammar" in route.fields], ids=str)
def test_grammars_are_enforced_or_refused(route: Route, ask: Ask) -> None:
    ask.forget()
    assert ask(route, {**route.body(), "grammar": 'root ::= "yes"'}).status_code == 200
    assert ask.engine.seen[0].constraint is not None
    ask.forget()
    for grammar in ("root ::= x y z", 'root ::= "', "a ::= b", "root ::= " + "(" * 10_000, "\0"):
        error = refusal(ask(route, {**route.body(), "grammar": grammar}), route)
        assert error["param"] == "grammar"
    assert ask.work == []
