"""Fields that ask for a constraint, and what is refused of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.types import Constraint
from server.input import constraints
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio
OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def closed_text(value: dict[str, Any]) -> str:
    """A schema as the engine gets it: an object that lists properties has no others."""
    return json.dumps({**value, "x-guidance": {"closed": True}})


CASES: list[tuple[dict[str, Any], Constraint | None]] = [
    ({}, None),
    ({"response_format": None, "grammar": None, "json_schema": None}, None),
    ({"response_format": {"type": "text"}}, None),
    ({"grammar": ""}, None),
    ({"response_format": {"type": "grammar", "grammar": ""}}, None),
    ({"response_format": {"type": "json_object"}}, Constraint("json_object")),
    ({"response_format": {"type": "json_object", "schema": {}}}, Constraint("json_object")),
    (
        {"response_format": {"type": "json_object", "schema": OBJECT}},
        Constraint("json_schema", closed_text(OBJECT)),
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}}},
        Constraint("json_schema", closed_text(OBJECT)),
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"strict": True, "schema": OBJECT}}},
        Constraint("json_schema", closed_text(OBJECT)),
    ),
    ({"response_format": {"type": "regex", "pattern": "[a-z]+"}}, Constraint("regex", "[a-z]+")),
    ({"response_format": {"type": "choice", "choices": ["a", "b"]}}, Constraint("choice", '["a", "b"]')),
    (
        {"response_format": {"type": "grammar", "grammar": 'root ::= "a"'}},
        Constraint("gbnf", 'root ::= "a"'),
    ),
    (
        {"response_format": {"type": "grammar", "grammar": 'start: "a"', "syntax": "lark"}},
        Constraint("lark", 'start: "a"'),
    ),
    ({"grammar": 'root ::= "a"'}, Constraint("gbnf", 'root ::= "a"')),
    ({"json_schema": OBJECT}, Constraint("json_schema", closed_text(OBJECT))),
    (
        {"json_schema": {"properties": {"a": {}}}},
        Constraint("json_schema", closed_text({"properties": {"a": {}}})),
    ),
    ({"json_schema": {}}, Constraint("json_object")),
    ({"json_schema": True}, Constraint("json_schema", "true")),
]


@pytest.mark.parametrize("route", [COMPLETIONS, CHAT])
async def test_requested_constraint_reaches_the_engine(route: str) -> None:
    engine = FakeEngine()
    about = {"prompt": "Once"} if route == COMPLETIONS else {"messages": user("A cat")}
    async with client(engine) as http:
        for fields, constraint in CASES:
            response = await http.post(route, json={**about, **fields, "n": 2})
            assert response.status_code == 200, response.text
            assert "warnings" not in response.json()
            assert [request.constraint for request in engine.seen[-2:]] == [constraint] * 2


F = "response_format"
SCHEMA = "response_format.json_schema.schema"


def schema(value: Any, **named: Any) -> dict[str, Any]:
    return {F: {"type": "json_schema", "json_schema": {"schema": value, **named}}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({F: "json_object"}, F, "must be an object"),
    ({F: {}}, f"{F}.type", "is required"),
    ({F: {"type": "sound"}}, f"{F}.type", "must be one of text, json_object"),
    ({F: {"type": 3}}, f"{F}.type", "must be one of"),
    ({F: {"type": "json_object", "schema": 123}}, f"{F}.schema", "must be a JSON schema"),
    ({F: {"type": "json_object", "schema": {"type": 123}}}, f"{F}.schema", "type must be a string"),
    ({F: {"type": "json_object", "schema": {"type": "hiccup"}}}, f"{F}.schema", "hiccup"),
    ({F: {"type": "json_schema"}}, f"{F}.json_schema", "is required"),
    ({F: {"type": "json_schema", "json_schema": "x"}}, f"{F}.json_schema", "must be an object"),
    ({F: {"type": "json_schema", "json_schema": {}}}, SCHEMA, "is required"),
    (schema({}, strict="yes"), f"{F}.json_schema.strict", "must be true or false"),
    (schema({}, name=3), f"{F}.json_schema.name", "must be a string"),
    (schema(False), SCHEMA, "nothing matches"),
    (schema({"not": {}}), SCHEMA, "not"),
    (schema({"enum": []}), SCHEMA, "nothing matches it"),
    (schema({"type": "integer", "minimum": 5, "maximum": 3}), SCHEMA, "no number is between 5 and 3"),
    (schema({"$ref": "#"}), SCHEMA, "nothing matches it"),
    (schema({"$ref": "https://example.com/x.json"}), SCHEMA, "only references inside"),
    (schema({"type": "string", "pattern": "(?<=a)"}), SCHEMA, "look-behind"),
    ({F: {"type": "regex"}}, f"{F}.pattern", "is required"),
    ({F: {"type": "regex", "pattern": 1}}, f"{F}.pattern", "must be a string"),
    ({F: {"type": "regex", "pattern": "("}}, f"{F}.pattern", "unclosed group"),
    ({F: {"type": "choice"}}, f"{F}.choices", "is required"),
    ({F: {"type": "choice", "choices": []}}, f"{F}.choices", "at least one"),
    ({F: {"type": "choice", "choices": ["a", 1]}}, f"{F}.choices", "must be a list of strings"),
    ({F: {"type": "grammar"}}, f"{F}.grammar", "is required"),
    ({F: {"type": "grammar", "grammar": "x", "syntax": "bnf"}}, f"{F}.syntax", "must be one of gbnf, lark"),
    ({F: {"type": "grammar", "grammar": "x"}}, f"{F}.grammar", "expected '::='"),
    ({F: {"type": "grammar", "grammar": "start: x", "syntax": "lark"}}, f"{F}.grammar", "line 1"),
    ({"grammar": 3}, "grammar", "string"),
    ({"grammar": "root ::= x"}, "grammar", "the rule 'x' is not defined"),
    ({"json_schema": 3}, "json_schema", "must be a JSON schema"),
    ({"json_schema": {"type": "nix"}}, "json_schema", "nix"),
    ({"grammar": 'root ::= "a"', "json_schema": {}}, "json_schema", "cannot be combined with grammar"),
    ({"grammar": 'root ::= "a"', F: {"type": "json_object"}}, "grammar", f"cannot be combined with {F}"),
]


async def test_invalid_values_are_refused_by_name() -> None:
    engine = FakeEngine()
    async with client(engine) as http:
        for fields, param, words in REFUSED:
            for route, about in ((COMPLETIONS, {"prompt": "Once"}), (CHAT, {"messages": user("A cat")})):
                error = error_of(await http.post(route, json={**about, **fields}), 400)
                assert error["param"] == param, error
                assert words in error["message"]
                assert "\n" not in error["message"]
    assert engine.seen == []


async def test_unenforced_keywords_are_named() -> None:
    engine = FakeEngine()
    value = {"type": "array", "items": {"type": "string", "format": "iban"}, "uniqueItems": True}
    async with client(engine) as http:
        body = {"prompt": "Once", **schema(value, strict=False, extra=1)}
        warnings = (await http.post(COMPLETIONS, json=body)).json()["warnings"]
        strict = error_of(await http.post(COMPLETIONS, json={"prompt": "Once", **schema(value)}), 400)
    assert f"{F}.json_schema.extra has no effect" in warnings
    assert f"{SCHEMA}: not enforced: format 'iban'" in warnings
    assert any("uniqueItems" in warning for warning in warnings)
    assert "uniqueItems" in strict["message"]


# docs/reliability.md: each is compiled or refused, and nothing else suffers.
def chain(n: int, link: Any) -> dict[str, Any]:
    links = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{n}": {"type": "string"}}}


def nested(n: int) -> dict[str, Any]:
    actual: dict[str, Any] = {"type": "string"}
    for _ in range(n):
        actual = {"type": "array", "items": actual}
    return actual


HOSTILE = {
    "recursive": {"json_schema": {"type": "object", "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}}},
    "circular": {"json_schema": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}},
    "properties": {
        "json_schema": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(10_000)}}
    },
    "repetition": {"json_schema": {"type": "string", "pattern": "^a{1,1000000}$"}},
    "nested repetition": {F: {"type": "regex", "pattern": "((((a{1,999}){1,999}){1,999}){1,999}){1,999}"}},
    "catastrophic": {"json_schema": {"type": "string", "pattern": "^(a+)+(b|a)*(x+x+)+y$"}},
    "exponential": {F: {"type": "regex", "pattern": "(a|b)*a(a|b){500}"}},
    "complements": {
        "json_schema": {"type": "string", "pattern": "".join(f"(?!.*{c}.{{12}}{c})" for c in "abcdefghijkl")}
    },
    "intersections": {
        "json_schema": {"type": "string", "pattern": "".join(f"(?=.*{c}.{{12}}{c})" for c in "abcdefghijkl")}
    },
    "remainders": {"json_schema": {"type": "integer", "multipleOf": 99_999_989}},
    "remainders together": {"json_schema": {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}},
    "references": {"json_schema": chain(900, lambda ref: {"type": "array", "items": ref})},
    "doubling": {"json_schema": chain(40, lambda ref: {"anyOf": [{"items": ref}, {"prefixItems": [ref]}]})},
    "long enum": {"json_schema": {"enum": [f"value {i}" for i in range(100_000)]}},
    "deep schema": {"json_schema": nested(90)},
    "many any": {"json_schema": {"allOf": [{"anyOf": [{"type": "object"}] * 10}] * 10}},
    "left recursion": {"grammar": 'root ::= root "a" | "a"'},
    "left recursion in Lark": {F: {"type": "grammar", "syntax": "lark", "grammar": 'start: start "a" | "a"'}},
    "undefined": {"grammar": "root ::= x y z"},
    "5 MB": {"grammar": 'root ::= "a"\n' + "# nothing\n" * 500_000},
    "deep": {"grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000},
    "deep in Lark": {
        F: {"type": "grammar", "syntax": "lark", "grammar": "start: " + "(" * 50_000 + '"a"' + ")" * 50_000}
    },
    "many rules": {
        "grammar": "\n".join([*(f'x{i} ::= "a" x{i + 1}' for i in range(50_000)), 'root ::= "a"'])
    },
    "ambiguous": {F: {"type": "grammar", "syntax": "lark", "grammar": 'start: e\ne: e e | e e e | "x" | ""'}},
    "endless": {F: {"type": "grammar", "syntax": "lark", "grammar": "start: A B\nA: /a*/\nB: /ab/"}},
    "chain of rules": {
        F: {
            "type": "grammar",
            "syntax": "lark",
            "grammar": "start: a0\n" + "".join(f"a{i}: a{i + 1}\n" for i in range(4000)) + 'a4000: "x"',
        }
    },
}
COMPILED = {"recursive", "repetition", "left recursion in Lark", "endless"}
ANY = {"exponential", "nested repetition", "catastrophic", "references", "doubling", "many any", "ambiguous"}
ANY |= {"chain of rules", "complements", "intersections"}


async def test_hostile_constraints_are_compiled_or_refused() -> None:
    engine = FakeEngine()
    async with client(engine, timeout=120) as http:
        for name, fields in HOSTILE.items():
            seen = len(engine.seen)
            response = await http.post(COMPLETIONS, json={"prompt": "Once", **fields})
            if response.status_code == 200:
                assert name in COMPILED | ANY
                assert engine.seen[-1].constraint is not None
            else:
                assert name not in COMPILED
                error_of(response, 400)
                assert len(engine.seen) == seen
        assert (await http.post(COMPLETIONS, json={"prompt": "Once"})).status_code == 200


async def test_same_schema_in_many_requests_at_once_is_accepted_by_all() -> None:
    engine = FakeEngine()
    n = constraints.MAX_WAITING + 4
    async with client(engine) as http:
        body = {"prompt": "Once", "json_schema": OBJECT}
        responses = await asyncio.gather(*(http.post(COMPLETIONS, json=body) for _ in range(n)))
    assert [response.status_code for response in responses] == [200] * n
    assert len(engine.seen) == n


async def test_a_full_queue_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_WAITING", 0)
    monkeypatch.setattr(constraints, "MAX_QUEUED", 0)
    async with client() as http:
        response = await http.post(COMPLETIONS, json={"prompt": "Once", "grammar": 'root ::= "a"'})
    assert error_of(response, 503)["code"] == "overloaded"
    assert response.headers["retry-after"] == "2"
