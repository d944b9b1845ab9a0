"""POST /v1/embeddings, /embeddings and /embedding: shapes, bounds and refusals."""

from __future__ import annotations

import re

import numpy as np
import openai
import pytest

from engine.tasks.types import Embed
from server.worker.errors import TaskFailed
from support.api.embeddings import V1, expected, tokens_of
from support.api.http import Live, client, error_of
from support.fakes.engine import FakeEngine, make_app, serving, vectors
from support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_embedding_of_a_text_is_one_vector():
    engine = FakeEngine()
    async with client(engine) as http:
        answer = (await http.post(V1, json={"input": "Once upon a time"})).json()
        tokens = tokens_of("Once upon a time")
        assert engine.works == [Embed([tokens], "last")]
        (data,) = answer.pop("data")
        np.testing.assert_allclose(data.pop("embedding"), expected(tokens)[0], atol=1e-6)
        assert data == {"object": "embedding", "index": 0}
        n = len(tokens)
        assert answer == {
            "object": "list",
            "model": "stories",
            "usage": {"prompt_tokens": n, "total_tokens": n},
        }
        metrics = (await http.get("/metrics")).text
        assert f'ggserve_prompt_tokens_total{{model="stories"}} {n}.0' in metrics


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("a cat", [tokens_of("a cat")]),
        (["a cat", "a dog"], [tokens_of("a cat"), tokens_of("a dog")]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
        (["a cat", [7]], [tokens_of("a cat"), [7]]),
        ([5, "a cat", 6, 7], [[5, *tokens_of("a cat")[1:], 6, 7]]),
        ([["a cat", 6], [7]], [[*tokens_of("a cat"), 6], [7]]),
        ({"prompt_string": "a cat"}, [tokens_of("a cat")]),
        (
            {"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]},
            [tokens_of("a cat")],
        ),
        (["x", {"prompt_string": "a cat"}], [tokens_of("x"), tokens_of("a cat")]),
        ("", [tokens_of("")]),
    ],
)
async def test_every_form_of_input_is_accepted(value, inputs):
    engine = FakeEngine()
    async with client(engine) as http:
        answer = await http.post(V1, json={"input": value})
        assert answer.status_code == 200, answer.text
        assert engine.works[0].inputs == inputs
        assert [data["index"] for data in answer.json()["data"]] == list(range(len(inputs)))
        assert answer.json()["usage"]["prompt_tokens"] == sum(map(len, inputs))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the list is empty"),
        (None, "is required"),
        (5, "must be a string"),
        ([5, None], "contains something else"),
        ([1.5, 2], "contains something else"),
        ([-1], "contains something else"),
        ([2**31], "contains something else"),
        ([True], "must be a string"),
        (["a", []], r"input\[1\]: is empty"),
        ([[]], "is empty"),
        ([["a", [5]]], "contains something else"),
        ({}, "prompt_string"),
        ({"content": "text"}, "prompt_string"),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}, "type text"),
        ({"content": [5]}, "type text"),
        ({"prompt_string": "x", "multimodal_data": ["AAAA"]}, "prompt_string"),
        ([99999], "token ids go from 0 to"),
    ],
)
async def test_invalid_inputs_are_refused(value, message):
    engine = FakeEngine()
    async with client(engine) as http:
        error = error_of(await http.post(V1, json={"input": value}), 400)
        assert error["param"].startswith("input")
        assert re.search(message, error["message"]), error["message"]
        assert engine.works == []


async def test_client_disconnect_cancels_the_task():
    engine = FakeEngine()
    engine.gate.clear()
    app = make_app(engine)
    async with app.router.lifespan_context(app):
        live = Live(app, V1, {"input": "a"})
        await until(lambda: engine.works)
        live._gone.set()
        await live.finish()
        assert engine.left == ["Embed"]


async def test_timeout_of_request_or_server_is_named():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        error = error_of(await http.post(V1, json={"input": "a", "timeout_ms": 20}), 503)
        assert (error["code"], error["param"]) == ("timeout", "timeout_ms")
        assert engine.left == ["Embed"]
    engine = FakeEngine()
    engine.gate.clear()
    async with client(make_app(engine, request_timeout_s=0.02)) as http:
        error = error_of(await http.post(V1, json={"input": "a", "timeout_ms": 100_000}), 503)
        assert (error["code"], error["param"]) == ("timeout", None)
        assert "--request-timeout-s" in error["message"]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TaskFailed("ConfigError", "pooling is odd"), 400, "invalid_value"),
        (TaskFailed("OutOfMemoryError", "CUDA0 has 3 bytes at 0x7f"), 503, "out_of_memory"),
        (TaskFailed("EngineError", "not finite /secret/x"), 500, "internal_error"),
        (TaskFailed("EngineDied", "died"), 500, "internal_error"),
    ],
)
async def test_engine_failures_have_their_status(failure, status, code):
    engine = FakeEngine()
    engine.work_error = failure
    async with client(engine) as http:
        answer = await http.post(V1, json={"input": "a"})
        assert error_of(answer, status)["code"] == code
        if status >= 500:
            assert str(failure) not in answer.text


async def test_full_queue_and_unavailable_engine_have_their_status():
    engine = FakeEngine()
    engine.full = True
    async with client(engine) as http:
        answer = await http.post(V1, json={"input": "a"})
        assert error_of(answer, 429)["code"] == "queue_full"
        assert answer.headers["retry-after"]
        engine.full = False
        engine.state = "failed"
        error_of(await http.post(V1, json={"input": "a"}), 503)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"input": NaN}', b'{"input": "\\ud800"}'])
async def test_malformed_bodies_are_refused(body):
    async with client() as http:
        answer = await http.post(V1, content=body, headers={"content-type": "application/json"})
        error_of(answer, 400)


async def test_official_client_reads_vectors_in_both_formats():
    engine = FakeEngine()
    with serving(make_app(engine)) as base, openai.OpenAI(base_url=base + "/v1", api_key="x") as api:
        actual = api.embeddings.create(model="stories", input=["a cat", "a dog"], dimensions=4)
        for data, text in zip(actual.data, ["a cat", "a dog"], strict=True):
            first = vectors(tokens_of(text), "last")[0][:4]
            np.testing.assert_allclose(data.embedding, first / np.linalg.norm(first), atol=1e-6)
        as_text = api.embeddings.create(model="stories", input="a cat", encoding_format="float")
        as_bytes = api.embeddings.create(model="stories", input="a cat")
        np.testing.assert_allclose(as_text.data[0].embedding, as_bytes.data[0].embedding)
        assert as_text.usage.prompt_tokens == as_text.usage.total_tokens == len(tokens_of("a cat"))
        with pytest.raises(openai.BadRequestError, match="is empty"):
            api.embeddings.create(model="stories", input=["a", []])
