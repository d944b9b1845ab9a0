"""What a request may be wrong about, beside its fields by themselves (api_contract/test_fields.py)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import server
from server.errors import path_of
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio

# Of the right type on the outside.
WRONG = {
    "prompt": [
        [[]],
        [1, "a"],
        ["a", 1],
        [["a"]],
        [-1],
        [1.5],
        [[1, -1]],
        [True],
        [2**31],
        [0, 2048],
        ["x"] * 17,
    ],
    "model": [""],
    "stop": [[5], [["a"]], ["a"] * 65, "a" * 4097, ["x" * 3000] * 2],
    "stop_token_ids": [["5"], [-1], [1.0], [True], [1] * 1025, [2048]],
    "logit_bias": [{"a": 1}, {"-1": 1}, {"1": "x"}, {"1": 101}, {"1": True}, {"1": None}, {"2048": 1}],
    "stream_options": [{"include_usage": 5}],
}


@pytest.mark.parametrize("field", WRONG)
async def test_invalid_nested_values_are_named(field):
    engine = FakeEngine()
    async with client(engine) as http:
        for value in WRONG[field]:
            body = {"prompt": "Once", field: value}
            status = 404 if (field, value) == ("model", "") else 400
            error = error_of(await http.post(COMPLETIONS, json=body), status)
            assert error["param"].split(".")[0] == field, (value, error)
            assert len(error["message"]) < 500
    assert engine.seen == []


async def test_unknown_model_is_404_and_names_those_served():
    async with client() as http:
        for route, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": user("x")})):
            error = error_of(await http.post(route, json={"model": "gpt-4", **body}), 404)
            assert error["code"] == "model_not_found"
            assert error["param"] == "model"
            assert "stories" in error["message"]


async def test_a_model_must_be_named_among_several():
    app = make_app({name: FakeEngine(f" {name}", name=name) for name in ("one", "two")})
    async with client(app) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "x"}), 400)
        named = (await http.post(COMPLETIONS, json={"prompt": "x", "model": "two"})).json()
    assert error["param"] == "model"
    assert named["choices"][0]["text"] == " two"
    assert named["model"] == "two"


@pytest.mark.parametrize(
    ("state", "code", "retry"),
    [
        ("loading", "model_loading", "true"),
        ("failed", "engine_failed", "false"),
        ("stopped", "shutting_down", "true"),
    ],
)
async def test_unavailable_engine_is_a_503_with_its_code(state, code, retry):
    engine = FakeEngine()
    engine.progress = 0.42
    async with client(engine) as http:
        engine.state = state
        response = await http.post(COMPLETIONS, json={"prompt": "x"})
    assert error_of(response, 503)["code"] == code
    assert response.headers["x-should-retry"] == retry
    assert ("retry-after" in response.headers) == (retry == "true")
    assert "/dev/secret" not in response.text


async def test_internal_error_is_a_500_without_details(caplog):
    class Broken(FakeEngine):
        def generate(self, request):
            raise RuntimeError("secret detail")

    async with client(Broken()) as http:
        whole = await http.post(COMPLETIONS, json={"prompt": "x"}, headers={"x-request-id": "abc-1"})
        stream = await http.post(COMPLETIONS, json={"prompt": "x", "stream": True})
    for response in (whole, stream):
        error = error_of(response, 500)
        assert error["type"] == "server_error"
        assert "secret" not in response.text
    assert "abc-1" in whole.text
    assert "secret detail" in caplog.text


async def test_path_of_a_location_names_the_field():
    assert path_of(("body", "messages", 3, "content")) == "messages[3].content"
    assert path_of(("body",)) is None
    assert path_of(("query", "model")) == "model"


def error_codes() -> Iterator[str]:
    """Every `code` that the server's source gives to an error."""
    for path in Path(server.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                values = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
                if getattr(call.func, "id", "") == "bad_request":
                    values += call.args[2:]
                yield from (value.value for value in values if isinstance(value, ast.Constant))


async def test_documentation_names_every_code():
    codes = set(error_codes())
    assert {"invalid_value", "model_in_use", "conversation_not_found"} <= codes
    text = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
    assert [code for code in sorted(codes) if f"`{code}`" not in text] == []
