"""What /openapi.json and /docs tell of the routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from support.api.routes import POSTS, Ask, Route, able_engine, asking, document, example, routes

DOCUMENT = document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
FIELDS = [(name, field) for name, schema in SCHEMAS.items() for field in schema.get("properties", {})]
METHODS = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_has_a_description_and_an_example(name, field):
    description = SCHEMAS[name]["properties"][field]
    assert description["description"].strip()
    assert description.get("examples") or "const" in description


@pytest.mark.parametrize(("method", "path"), METHODS)
def test_every_route_documents_its_purpose_and_errors(method, path):
    operation = DOCUMENT["paths"][path][method]
    assert operation["description"].strip()
    refused = operation["responses"]["400"]["content"]["application/json"]["schema"]
    assert refused["$ref"].endswith("/ErrorReply")
    assert "422" not in operation["responses"]
    for parameter in operation.get("parameters", ()):
        assert parameter.get("description") or parameter["in"] == "path", parameter["name"]


# Examples of fields that go together with others: what these must be.
WITH: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": ...},
    "prompt": {"content": None},  # its other name
    "continue_final_message": {"messages": [{"role": "assistant", "content": "Once"}]},
}
# They name or send what is not here, change what the answer has, or stand in place of another.
ELSEWHERE = {
    "model",
    "previous_response_id",
    "file",
    "dimensions",
    "filename",
    "response_fields",
    "texts",
    "images",
}


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking(able_engine(n_ctx=4096)) as asker:
        yield asker


def strays(route: Route, answer: Any) -> list[str]:
    """Where an answer is not as described."""
    described = route.operation["responses"]["200"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**described, "components": DOCUMENT["components"]})
    actual = best_match(validator.iter_errors(answer))
    return [] if actual is None else [f"{actual.json_path}: {actual.message[:200]}"]


@pytest.mark.parametrize("route", POSTS, ids=str)
def test_examples_are_accepted_and_answered_as_described(route: Route, ask: Ask) -> None:
    for field in route.all_fields():
        if len(field.path) > 1 or field.top in ELSEWHERE:
            continue
        extra = {k: v for k, v in WITH.get(field.top, {}).items() if k in route.fields}
        extra = {k: example(route.fields[k]) if v is ... else v for k, v in extra.items()}
        response = ask(route, {**field.body(field.example), **extra})
        assert response.status_code == 200, (field.name, response.text)
        if response.headers["content-type"] == "application/json":
            assert not strays(route, response.json()), field.name


@pytest.mark.parametrize("route", routes(), ids=lambda route: f"{route.method} {route.path}")
def test_get_route_responds_as_described(route: Route, ask: Ask) -> None:
    for parameter in route.operation.get("parameters", ()):
        assert not parameter["required"] or parameter["in"] == "path" or example(parameter["schema"])
    if route.method == "GET" and "{" not in route.path:
        response = ask(route)
        assert response.status_code == 200
        if response.headers["content-type"] == "application/json":
            assert not strays(route, response.json())
