"""vLLM's and SGLang's fields that constrain the output: what they become, and what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.types import Constraint
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATHS = {CHAT: {"messages": user("A cat")}, COMPLETIONS: {"prompt": "A cat"}}
LARK = '%llguidance {}\nstart: "yes" | NUMBER  // no ::= here\nNUMBER: /[0-9]+/'
GBNF = 'root ::= "yes: no" | [0-9]+'
INTEGER = {"type": "integer"}
TAG = {"structures": [{"begin": "<f>", "schema": INTEGER, "end": "</f>"}], "triggers": ["<f>"]}


class Asking:
    def __init__(self, engine, http):
        self.engine, self.http = engine, http

    async def constraint(self, path, fields):
        """What the engine must hold the output to."""
        self.engine.seen.clear()
        response = await self.http.post(path, json={**PATHS[path], **fields})
        assert response.status_code == 200, response.text
        [request] = self.engine.seen
        return request.constraint, response.json().get("warnings", [])

    async def refusal(self, path, fields):
        self.engine.seen.clear()
        error = error_of(await self.http.post(path, json={**PATHS[path], **fields}), 400)
        assert self.engine.seen == []
        return error


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask() -> AsyncIterator[Asking]:
    engine = FakeEngine(n_ctx=4096)
    async with client(engine) as http:
        yield Asking(engine, http)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"guided_regex": "[0-9]+"}, Constraint("regex", "[0-9]+")),
        ({"regex": "[0-9]+"}, Constraint("regex", "[0-9]+")),
        ({"structured_outputs": {"regex": "[0-9]+"}}, Constraint("regex", "[0-9]+")),
        ({"guided_choice": ["a", "b"]}, Constraint("choice", '["a", "b"]')),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Constraint("choice", '["a", "b"]')),
        ({"guided_grammar": LARK}, Constraint("lark", LARK)),
        ({"guided_grammar": GBNF}, Constraint("gbnf", GBNF)),
        ({"ebnf": LARK}, Constraint("lark", LARK)),
        ({"ebnf": GBNF}, Constraint("gbnf", GBNF)),
        ({"structured_outputs": {"grammar": GBNF}}, Constraint("gbnf", GBNF)),
        ({"guided_json_object": True}, Constraint("json_object")),
        ({"structured_outputs": {"json_object": True, "regex": None}}, Constraint("json_object")),
        ({"format": "json"}, Constraint("json_object")),
        ({"format": ""}, None),
        ({"guided_json_object": False, "guided_json": None}, None),
        ({"guided_grammar": LARK, "structured_outputs": {"grammar": LARK}}, Constraint("lark", LARK)),
    ],
)
async def test_fields_of_other_servers_become_constraints(ask, path, fields, constraint):
    assert await ask.constraint(path, fields) == (constraint, [])


@pytest.mark.parametrize("path", PATHS)
async def test_every_form_of_a_schema_equals_response_format(ask, path):
    named = {"response_format": {"type": "json_schema", "json_schema": {"schema": INTEGER}}}
    expected, _ = await ask.constraint(path, named)
    for value in (INTEGER, json.dumps(INTEGER)):
        for fields in ({"guided_json": value}, {"structured_outputs": {"json": value}}):
            assert await ask.constraint(path, fields) == (expected, [])
    assert await ask.constraint(path, {"format": INTEGER}) == (expected, [])


async def test_json_whitespace_follows_the_request(ask):
    compact, _ = await ask.constraint(
        CHAT, {"structured_outputs": {"json": {}, "disable_any_whitespace": True}}
    )
    assert json.loads(compact.text)["x-guidance"]["whitespace_flexible"] is False
    for fields in (
        {"guided_json": {}, "guided_whitespace_pattern": "[ ]"},
        {"structured_outputs": {"json_object": True, "whitespace_pattern": "[ ]"}},
    ):
        spaced, _ = await ask.constraint(CHAT, fields)
        assert json.loads(spaced.text)["x-guidance"]["whitespace_pattern"] == "[ ]"
    _, warnings = await ask.constraint(
        CHAT, {"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}
    )
    assert [text.split(":")[0] for text in warnings] == ["structured_outputs"]
    nothing, warnings = await ask.constraint(CHAT, {"guided_whitespace_pattern": " "})
    assert (nothing, [text.split()[0] for text in warnings]) == (None, ["guided_whitespace_pattern"])


async def test_structural_tag_as_object_or_text_becomes_a_grammar(ask):
    first, _ = await ask.constraint(CHAT, {"structural_tag": TAG})
    for fields in (
        {"structural_tag": json.dumps(TAG)},
        {"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", **TAG})}},
    ):
        assert await ask.constraint(CHAT, fields) == (first, [])
    assert first.kind == "lark"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": {"type": "frog"}}, "guided_json"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": 5}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_grammar": "start: ("}, "guided_grammar"),
        ({"guided_grammar": " "}, "guided_grammar"),
        ({"ebnf": "root ::= x"}, "ebnf"),
        ({"regex": "("}, "regex"),
        ({"format": "yaml"}, "format"),
        ({"format": {"type": "frog"}}, "format"),
        ({"format": "json", "response_format": {"type": "regex", "pattern": "a"}}, "format"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": 5}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": "a"}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": []}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {"enum": []}}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {}, "whitespace_pattern": "("}}, "structured_outputs.json"),
        ({"structural_tag": {**TAG, "triggers": []}}, "structural_tag.triggers"),
        ({"structural_tag": "x"}, "structural_tag"),
        ({"guided_regex": "a", "regex": "b"}, "regex"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"structured_outputs": {"regex": "a"}, "grammar": GBNF}, "structured_outputs"),
    ],
)
async def test_unenforceable_constraints_are_refused_by_name(ask, path, fields, param):
    error = await ask.refusal(path, fields)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
