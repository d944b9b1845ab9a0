"""Vectors: pooling, norms, dimensions, encodings, and how many go in one response."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from server.api.common.embeddings.vectors import normalized
from support.api.embeddings import V1, expected
from support.api.http import client, error_of
from support.fakes.engine import N_EMBD, FakeEngine, make_app, vectors

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(("file", "length"), [(None, "one"), (True, "one"), (False, "own")])
async def test_model_file_decides_whether_vectors_are_normalized(file, length):
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


async def test_many_tokens_are_split_into_several_tasks():
    engine = FakeEngine()
    async with client(engine) as http:
        inputs = [[i % 300] * 500 for i in range(300)]
        answer = (await http.post(V1, json={"input": inputs, "encoding_format": "base64"})).json()
        assert [len(work.inputs) for work in engine.works] == [131, 131, 38]
        for i, data in enumerate(answer["data"]):
            actual = np.frombuffer(base64.b64decode(data["embedding"]), "<f4")
            np.testing.assert_allclose(actual, expected(inputs[i])[0], atol=1e-6)


async def test_every_encoding_format_gives_the_same_numbers():
    async with client() as http:
        floats = (await http.post(V1, json={"input": "a cat", "encoding_format": "float"})).json()
        text = (await http.post(V1, json={"input": "a cat", "encoding_format": "base64"})).json()
        decoded = np.frombuffer(base64.b64decode(text["data"][0]["embedding"]), "<f4")
        np.testing.assert_array_equal(np.float32(floats["data"][0]["embedding"]), decoded)
        assert error_of(await http.post(V1, json={"input": "a", "encoding_format": "hex"}), 400)["param"] == (
            "encoding_format"
        )


async def test_dimensions_cuts_and_renormalizes_vectors():
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
async def test_embd_normalize_gives_the_norms_of_llama_server(norm, length):
    async with client() as http:
        answer = (await http.post(V1, json={"input": [5, 6], "embd_normalize": norm})).json()
        raw = vectors([5, 6], "last")[0].astype(np.float64)
        requested = raw if length is None else raw / length(raw)
        np.testing.assert_allclose(answer["data"][0]["embedding"], requested, rtol=1e-6)


async def test_normalizing_zeros_gives_zeros():
    for norm in (-1, 0, 1, 2, 5):
        np.testing.assert_array_equal(normalized(np.zeros((1, 4), np.float32), norm), np.zeros((1, 4)))


async def test_pooling_of_request_overrides_option_overrides_file():
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


async def test_normalize_alongside_embd_normalize_is_refused():
    async with client() as http:
        body = {"input": "a", "normalize": True, "embd_normalize": 2}
        assert error_of(await http.post(V1, json=body), 400)["param"] == "embd_normalize"


async def test_response_that_would_be_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("server.api.common.embeddings.vectors.MAX_VALUES", 10 * N_EMBD)
    engine = FakeEngine()
    async with client(engine) as http:
        assert (await http.post("/embedding", json={"input": [5] * 10, "pooling": "none"})).status_code == 200
        for name in ("input", "content"):
            body = {name: [5] * 11, "pooling": "none"}
            error = error_of(await http.post("/embedding", json=body), 400)
            assert error["message"].startswith(f"{name}: 11 vectors of 8 numbers")
            assert error["param"] == name
        assert (await http.post(V1, json={"input": [5] * 11})).status_code == 200
        assert len(engine.works) == 2
