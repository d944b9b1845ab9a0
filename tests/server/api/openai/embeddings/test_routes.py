"""POST /v1/embeddings, /embeddings and /embedding: shapes, bounds and refusals."""

from __future__ import annotations

import base64
import re

import numpy as np
import openai
import pytest

from engine.tasks.types import Embed
from server.api.common.embeddings.vectors import normalized
from server.worker.errors import TaskFailed
from support.api.http import Live, client, error_of
from support.fakes.engine import N_EMBD, FakeEngine, make_app, serving, tokenizer, vectors
from support.waiting import until

pytestmark = pytest.mark.asyncio
V1 = "/v1/embeddings"


def tokens_of(text: str) -> list[int]:
    return tokenizer().encode(text, add_special=True, parse_special=True)


def expected(tokens: list[int], pooling: str = "last") -> np.ndarray:
    found = vectors(tokens, pooling).astype(np.float64)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


async def test_a_text():
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
    ("given", "inputs"),
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
async def test_kinds_of_input(given, inputs):
    engine = FakeEngine()
    async with client(engine) as http:
        answer = await http.post(V1, json={"input": given})
        assert answer.status_code == 200, answer.text
        assert engine.works[0].inputs == inputs
        assert [data["index"] for data in answer.json()["data"]] == list(range(len(inputs)))
        assert answer.json()["usage"]["prompt_tokens"] == sum(map(len, inputs))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the list is empty"),
        (None, "is required"),
        (5, "must be a string"),
        ([5, None], "holds something else"),
        ([1.5, 2], "holds something else"),
        ([-1], "holds something else"),
        ([2**31], "holds something else"),
        ([True], "must be a string"),
        (["a", []], r"input\[1\]: is empty"),
        ([[]], "is empty"),
        ([["a", [5]]], "holds something else"),
        ({}, "prompt_string"),
        ({"content": "text"}, "prompt_string"),
        ({"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}, "type text"),
        ({"content": [5]}, "type text"),
        ({"prompt_string": "x", "multimodal_data": ["AAAA"]}, "prompt_string"),
        ([99999], "token ids go from 0 to"),
    ],
)
async def test_inputs_that_are_refused(given, message):
    engine = FakeEngine()
    async with client(engine) as http:
        error = error_of(await http.post(V1, json={"input": given}), 400)
        assert error["param"].startswith("input")
        assert re.search(message, error["message"]), error["message"]
        assert engine.works == []


async def test_too_long_and_too_many():
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


@pytest.mark.parametrize(("file", "length"), [(None, "one"), (True, "one"), (False, "own")])
async def test_a_file_says_whether_vectors_are_normalized(file, length):
    """`pooling_normalize`, which `ggserve convert` writes for folders without a Normalize module."""
    engine = FakeEngine()
    if file is not None:
        engine.info["normalize"] = file
    own = vectors([5, 6], "last")[0]
    async with client(engine) as http:

        async def embedding(path, **fields):
            answer = (await http.post(path, json={"input": [5, 6], **fields})).json()
            return answer["data"][0]["embedding"] if path == V1 else answer[0]["embedding"][0]

        for path in (V1, "/embeddings"):
            default = own if length == "own" else expected([5, 6])[0]
            np.testing.assert_allclose(await embedding(path), default, atol=1e-6)
            np.testing.assert_allclose(await embedding(path, normalize=True), expected([5, 6])[0], atol=1e-6)
            np.testing.assert_allclose(await embedding(path, normalize=False), own, atol=1e-6)
        np.testing.assert_allclose(
            await embedding(V1, dimensions=3),
            default[:3] if length == "own" else own[:3] / np.linalg.norm(own[:3]),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("fields", "n"),
    [({"truncate": True}, 32), ({"truncate_prompt_tokens": -1}, 32), ({"truncate_prompt_tokens": 10}, 10)],
)
async def test_longer_inputs_are_cut_where_that_is_requested(fields, n):
    engine = FakeEngine(n_ctx=32)
    long = "a cat sat on a mat. " * 20
    async with client(engine) as http:
        for path in (V1, "/embeddings"):
            engine.works.clear()
            response = await http.post(path, json={"input": ["x", long, [7] * 40], **fields})
            assert response.status_code == 200, response.text
            assert engine.works[0].inputs == [tokens_of("x"), tokens_of(long)[:n], [7] * n]
            said = response.json()["warnings"] if path == V1 else [response.headers["x-warnings"]]
            assert "; ".join(said) == (
                f"input[1]: only the first {n} of {len(tokens_of(long))} tokens are used; "
                f"input[2]: only the first {n} of 40 tokens are used"
            )
        assert "warnings" not in (await http.post(V1, json={"input": "x", **fields})).json()


async def test_a_text_that_is_cut_is_tokenized_no_further_than_needed():
    engine = FakeEngine(n_ctx=32)
    async with client(engine) as http:
        body = {"input": "a cat sat on a mat. " * 100_000, "truncate": True}
        answer = (await http.post(V1, json=body)).json()
    assert engine.works[0].inputs == [tokens_of("a cat sat on a mat. " * 20)[:32]]
    assert re.fullmatch(r"input: only the first 32 of more than \d+ tokens are used", *answer["warnings"])


async def test_advice_for_inputs_that_are_too_long_can_be_followed():
    engine = FakeEngine(n_ctx=32)
    engine.info["n_ctx_train"] = 32  # all positions that the model has
    body = {"input": [5] * 33}
    async with client(engine) as http:
        message = error_of(await http.post(V1, json=body), 400)["message"]
        assert message.endswith("shorten it or send truncate_prompt_tokens: -1 to use its beginning only")
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
async def test_limits_of_truncation_that_cannot_be_are_refused(fields, param):
    async with client() as http:
        error = error_of(await http.post(V1, json={"input": "a cat sat on a mat", **fields}), 400)
    assert error["param"] == param


async def test_many_tokens_go_in_several_orders():
    engine = FakeEngine()
    async with client(engine) as http:
        inputs = [[i % 300] * 500 for i in range(300)]
        answer = (await http.post(V1, json={"input": inputs, "encoding_format": "base64"})).json()
        assert [len(work.inputs) for work in engine.works] == [131, 131, 38]
        for i, data in enumerate(answer["data"]):
            found = np.frombuffer(base64.b64decode(data["embedding"]), "<f4")
            np.testing.assert_allclose(found, expected(inputs[i])[0], atol=1e-6)


async def test_formats_are_the_same_numbers():
    async with client() as http:
        floats = (await http.post(V1, json={"input": "a cat", "encoding_format": "float"})).json()
        text = (await http.post(V1, json={"input": "a cat", "encoding_format": "base64"})).json()
        decoded = np.frombuffer(base64.b64decode(text["data"][0]["embedding"]), "<f4")
        np.testing.assert_array_equal(np.float32(floats["data"][0]["embedding"]), decoded)
        assert error_of(await http.post(V1, json={"input": "a", "encoding_format": "hex"}), 400)["param"] == (
            "encoding_format"
        )


async def test_dimensions_are_cut_and_normalised_again():
    async with client() as http:
        answer = (await http.post(V1, json={"input": [5, 6], "dimensions": 3})).json()
        first = vectors([5, 6], "last")[0][:3]
        np.testing.assert_allclose(answer["data"][0]["embedding"], first / np.linalg.norm(first), atol=1e-6)
        raw = (await http.post(V1, json={"input": [5, 6], "dimensions": 3, "normalize": False})).json()
        np.testing.assert_array_equal(raw["data"][0]["embedding"], first)
        for bad in (N_EMBD + 1, 0, -1, 2**31, "5"):
            error = error_of(await http.post(V1, json={"input": "a", "dimensions": bad}), 400)
            assert error["param"] == "dimensions"


@pytest.mark.parametrize(
    ("norm", "length"),
    [
        (-1, None),
        (0, lambda v: np.abs(v).max() / 32760),
        (1, lambda v: np.abs(v).sum()),
        (2, np.linalg.norm),
        (3, lambda v: (np.abs(v) ** 3).sum() ** (1 / 3)),
        (1024, lambda v: np.abs(v).max() * (np.abs(v / np.abs(v).max()) ** 1024).sum() ** (1 / 1024)),
    ],
)
async def test_norms_of_llama_server(norm, length):
    async with client() as http:
        answer = (await http.post(V1, json={"input": [5, 6], "embd_normalize": norm})).json()
        raw = vectors([5, 6], "last")[0].astype(np.float64)
        wanted = raw if length is None else raw / length(raw)
        np.testing.assert_allclose(answer["data"][0]["embedding"], wanted, rtol=1e-6)


async def test_norms_of_zeros_are_zeros():
    for norm in (-1, 0, 1, 2, 5):
        np.testing.assert_array_equal(normalized(np.zeros((1, 4), np.float32), norm), np.zeros((1, 4)))


@pytest.mark.parametrize("path", ["/embeddings", "/embedding"])
async def test_the_format_of_llama_server(path):
    engine = FakeEngine()
    async with client(engine) as http:
        answer = (await http.post(path, json={"content": ["a cat", [5, 6]]})).json()
        assert [sorted(entry) for entry in answer] == [["embedding", "index"]] * 2
        np.testing.assert_allclose(answer[1]["embedding"], expected([5, 6]), atol=1e-6)
        answer = (await http.post(path, json={"input": [5, 6, 7], "pooling": "none"})).json()
        np.testing.assert_array_equal(answer[0]["embedding"], vectors([5, 6, 7], "none"))
        answer = (await http.post(path, json={"input": [5, 6], "pooling": "none", "normalize": True})).json()
        np.testing.assert_allclose(answer[0]["embedding"], expected([5, 6], "none"), atol=1e-6)
        odd = await http.post(path, json={"input": [5], "encoding_format": "base64", "größe": 1})
        assert isinstance(odd.json()[0]["embedding"][0][0], float)
        assert odd.headers["x-warnings"].startswith("gr\\xf6\\xdfe has no effect; encoding_format has no")
        plain = await http.post(path, json={"input": [5]})
        assert "x-warnings" not in plain.headers


async def test_content_on_the_openai_route_is_answered_as_llama_server_does():
    async with client() as http:
        assert isinstance((await http.post(V1, json={"content": "a"})).json(), list)
        answer = (await http.post(V1, json={"input": "a", "content": "b", "user": "me"})).json()
        assert answer["warnings"] == ["user has no effect", "content has no effect: input is set"]


async def test_pooling_of_file_option_and_request():
    engine = FakeEngine()
    async with client(make_app(engine, pooling="mean")) as http:
        await http.post(V1, json={"input": "a"})
        await http.post(V1, json={"input": "a", "pooling": "cls"})
        assert [work.pooling for work in engine.works] == ["mean", "cls"]
    engine = FakeEngine()
    engine.info["pooling"] = "cls"
    async with client(engine) as http:
        await http.post(V1, json={"input": "a"})
        assert engine.works[0].pooling == "cls"
        error = error_of(await http.post(V1, json={"input": "a", "pooling": "none"}), 400)
        assert error["param"] == "pooling"
        assert "/embeddings" in error["message"]
        error = error_of(await http.post(V1, json={"input": "a", "pooling": "rank"}), 400)
        assert error["code"] == "no_ranking"
        error = error_of(await http.post(V1, json={"input": "a", "pooling": "max"}), 400)
        assert error["param"] == "pooling"


async def test_both_ways_to_say_how_to_normalise():
    async with client() as http:
        body = {"input": "a", "normalize": True, "embd_normalize": 2}
        assert error_of(await http.post(V1, json=body), 400)["param"] == "embd_normalize"


async def test_answers_that_would_be_too_large(monkeypatch):
    monkeypatch.setattr("server.api.common.embeddings.vectors.MAX_VALUES", 10 * N_EMBD)
    engine = FakeEngine()
    async with client(engine) as http:
        assert (await http.post("/embedding", json={"input": [5] * 10, "pooling": "none"})).status_code == 200
        error = error_of(await http.post("/embedding", json={"input": [5] * 11, "pooling": "none"}), 400)
        assert "11 vectors of 8 numbers" in error["message"]
        assert (await http.post(V1, json={"input": [5] * 11})).status_code == 200
        assert len(engine.works) == 2


async def test_a_client_that_leaves_cancels():
    engine = FakeEngine()
    engine.gate.clear()
    app = make_app(engine)
    async with app.router.lifespan_context(app):
        live = Live(app, V1, {"input": "a"})
        await until(lambda: engine.works)
        live._gone.set()
        await live.finish()
        assert engine.left == ["Embed"]


async def test_the_time_is_up():
    engine = FakeEngine()
    engine.gate.clear()
    async with client(engine) as http:
        error = error_of(await http.post(V1, json={"input": "a", "timeout_ms": 20}), 503)
        assert error["code"] == "timeout"
        assert engine.left == ["Embed"]
    engine = FakeEngine()
    engine.gate.clear()
    async with client(make_app(engine, request_timeout_s=0.02)) as http:
        error_of(await http.post(V1, json={"input": "a", "timeout_ms": 100_000}), 503)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (TaskFailed("ConfigError", "pooling is odd"), 400, "invalid_value"),
        (TaskFailed("OutOfMemoryError", "CUDA0 has 3 bytes at 0x7f"), 503, "out_of_memory"),
        (TaskFailed("EngineError", "not finite /secret/x"), 500, "internal_error"),
        (TaskFailed("EngineDied", "died"), 500, "internal_error"),
    ],
)
async def test_what_the_engine_refuses(failure, status, code):
    engine = FakeEngine()
    engine.work_error = failure
    async with client(engine) as http:
        answer = await http.post(V1, json={"input": "a"})
        assert error_of(answer, status)["code"] == code
        if status >= 500:
            assert str(failure) not in answer.text


async def test_a_full_queue_and_an_engine_that_is_gone():
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
async def test_bodies_that_are_no_request(body):
    async with client() as http:
        answer = await http.post(V1, content=body, headers={"content-type": "application/json"})
        error_of(answer, 400)


async def test_the_official_client():
    engine = FakeEngine()
    with serving(make_app(engine)) as base, openai.OpenAI(base_url=base + "/v1", api_key="x") as api:
        found = api.embeddings.create(model="stories", input=["a cat", "a dog"], dimensions=4)
        for data, text in zip(found.data, ["a cat", "a dog"], strict=True):
            first = vectors(tokens_of(text), "last")[0][:4]
            np.testing.assert_allclose(data.embedding, first / np.linalg.norm(first), atol=1e-6)
        as_text = api.embeddings.create(model="stories", input="a cat", encoding_format="float")
        as_bytes = api.embeddings.create(model="stories", input="a cat")
        np.testing.assert_allclose(as_text.data[0].embedding, as_bytes.data[0].embedding)
        assert as_text.usage.prompt_tokens == as_text.usage.total_tokens == len(tokens_of("a cat"))
        with pytest.raises(openai.BadRequestError, match="is empty"):
            api.embeddings.create(model="stories", input=["a", []])
