"""Inputs of embeddings within the limits of the model: refused, or cut where that is requested."""

from __future__ import annotations

import re

import pytest

from support.api.embeddings import V1, tokens_of
from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


async def test_inputs_too_long_or_too_many_are_refused():
    engine = FakeEngine(n_ctx=32)
    async with client(make_app(engine, max_inputs=3)) as http:
        assert (await http.post(V1, json={"input": [[5] * 32] * 3})).status_code == 200
        error = error_of(await http.post(V1, json={"input": [[5], [5] * 33]}), 400)
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == "input[1]"
        assert "is too large" in error["message"]
        assert "33 tokens" in error["message"]
        assert "at most 32" in error["message"]
        error = error_of(await http.post(V1, json={"input": "a cat sat on a mat " * 1000}), 400)
        assert error["code"] == "context_length_exceeded"
        assert "at least" in error["message"]
        error = error_of(await http.post(V1, json={"input": ["a"] * 4}), 400)
        assert error["param"] == "input"
        assert "--max-inputs" in error["message"]


@pytest.mark.parametrize(
    ("fields", "n"),
    [({"truncate": True}, 32), ({"truncate_prompt_tokens": -1}, 32), ({"truncate_prompt_tokens": 10}, 10)],
)
async def test_overlong_inputs_are_truncated_on_request(fields, n):
    engine = FakeEngine(n_ctx=32)
    long = "a cat sat on a mat. " * 20
    async with client(engine) as http:
        for path in (V1, "/embeddings"):
            engine.works.clear()
            response = await http.post(path, json={"input": ["x", long, [7] * 40], **fields})
            assert response.status_code == 200, response.text
            assert engine.works[0].inputs == [tokens_of("x"), tokens_of(long)[:n], [7] * n]
            warnings = response.json()["warnings"] if path == V1 else [response.headers["x-warnings"]]
            assert "; ".join(warnings) == (
                f"input[1]: only the first {n} of {len(tokens_of(long))} tokens are used; "
                f"input[2]: only the first {n} of 40 tokens are used"
            )
        assert "warnings" not in (await http.post(V1, json={"input": "x", **fields})).json()


async def test_truncated_text_is_tokenized_no_further_than_needed():
    engine = FakeEngine(n_ctx=32)
    async with client(engine) as http:
        body = {"input": "a cat sat on a mat. " * 100_000, "truncate": True}
        answer = (await http.post(V1, json=body)).json()
    assert engine.works[0].inputs == [tokens_of("a cat sat on a mat. " * 20)[:32]]
    assert re.fullmatch(r"input: only the first 32 of more than \d+ tokens are used", *answer["warnings"])


async def test_advice_for_overlong_inputs_works():
    engine = FakeEngine(n_ctx=32)
    engine.info["n_ctx_train"] = 32  # all positions that the model has
    body = {"input": [5] * 33}
    async with client(engine) as http:
        message = error_of(await http.post(V1, json=body), 400)["message"]
        assert message.endswith("shorten it or send truncate: true to use its beginning only")
        message = error_of(await http.post(V1, json={**body, "truncate": False}), 400)["message"]
        assert "--context-size" not in message
        message = error_of(await http.post(V1, json={**body, "truncate_prompt_tokens": 50}), 400)["message"]
        assert "33 tokens, the model takes at most 32" in message
        engine.info["n_ctx_train"] = 512
        message = error_of(await http.post(V1, json=body), 400)["message"]
        assert message.endswith("or raise --context-size (the model was trained for 512)")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 1}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 5, "truncate": False}, "truncate"),
        ({"truncate": "END"}, "truncate"),
    ],
)
async def test_invalid_limits_of_truncation_are_refused(fields, param):
    async with client() as http:
        error = error_of(await http.post(V1, json={"input": "a cat sat on a mat", **fields}), 400)
    assert error["param"] == param
