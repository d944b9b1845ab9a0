"""POST /v1/rerank and its other names: both formats, bounds and refusals."""

from __future__ import annotations

import math

import pytest

from engine.tasks.types import Embed
from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app, tokenizer, vectors

pytestmark = pytest.mark.asyncio
V1 = "/v1/rerank"
DOCUMENTS = ["A machine", "Learning is", "a cat", "Paris, capitale de la France"]
QUERY = "What is it?"


def ranker(**options) -> FakeEngine:
    engine = FakeEngine(**options)
    engine.info |= {"n_scores": 1, "pooling": "rank"}
    return engine


def pair(document: str, query: str = QUERY) -> tuple[list[int], int]:
    return tokenizer().encode_pair(query, document)


def score(document: str) -> float:
    return float(vectors(pair(document)[0], "rank")[0, 0])


BEST = sorted(range(4), key=lambda i: -score(DOCUMENTS[i]))
assert sorted(BEST) != BEST


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"])
async def test_rerank_of_documents_answers_as_jina(path):
    engine = ranker()
    async with client(engine) as http:
        answer = (await http.post(path, json={"query": QUERY, "documents": DOCUMENTS})).json()
        pairs = [pair(document) for document in DOCUMENTS]
        assert engine.works == [Embed([tokens for tokens, _ in pairs], "rank", [start for _, start in pairs])]
        n = sum(len(tokens) for tokens, _ in pairs)
        assert answer == {
            "object": "list",
            "model": "stories",
            "results": [{"index": i, "relevance_score": score(DOCUMENTS[i])} for i in BEST],
            "usage": {"prompt_tokens": n, "total_tokens": n},
        }


async def test_rerank_of_texts_answers_as_tei():
    async with client(ranker()) as http:
        body = {"query": QUERY, "texts": DOCUMENTS}
        answer = await http.post("/rerank", json=body | {"odd": 1, "documents": ["b"]})
        assert answer.json() == [{"index": i, "score": score(DOCUMENTS[i])} for i in BEST]
        warnings = "odd has no effect; documents has no effect: texts is set"
        assert answer.headers["x-warnings"] == warnings
        answer = (await http.post("/rerank", json=body | {"return_text": True, "raw_scores": False})).json()
        assert [entry["text"] for entry in answer] == [DOCUMENTS[i] for i in BEST]
        for entry in answer:
            assert entry["score"] == pytest.approx(1 / (1 + math.exp(-score(entry["text"]))))


@pytest.mark.parametrize(("top_n", "n"), [(None, 4), (1, 1), (2, 2), (4, 4), (99, 4)])
@pytest.mark.parametrize("kind", ["documents", "texts"])
async def test_rerank_with_top_n_returns_only_the_best(kind, top_n, n):
    async with client(ranker()) as http:
        answer = (await http.post(V1, json={"query": QUERY, kind: DOCUMENTS, "top_n": top_n})).json()
        results = answer["results"] if kind == "documents" else answer
        assert [result["index"] for result in results] == BEST[:n]


async def test_documents_are_returned_on_request():
    async with client(ranker()) as http:
        documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}]
        body = {"query": QUERY, "documents": documents, "return_documents": True, "return_text": True}
        answer = (await http.post(V1, json=body)).json()
        for result in answer["results"]:
            assert result["document"] == {"text": DOCUMENTS[result["index"]]}
        assert answer["warnings"] == ["return_text has no effect with documents"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": QUERY}, "documents"),
        ({"query": QUERY, "documents": None}, "documents"),
        ({"query": QUERY, "documents": []}, "documents"),
        ({"query": QUERY, "documents": 123}, "documents"),
        ({"query": QUERY, "documents": [1, 2, 3]}, "documents"),
        ({"query": QUERY, "documents": ["a", {"text": 5}]}, "documents"),
        ({"query": QUERY, "documents": ["a", {"image": "x"}]}, "documents"),
        ({"query": QUERY, "texts": "a"}, "texts"),
        ({"documents": ["a"]}, "query"),
        ({"query": 5, "documents": ["a"]}, "query"),
        ({"query": None, "documents": ["a"]}, "query"),
        ({"query": QUERY, "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": QUERY, "documents": ["a"], "top_n": "2"}, "top_n"),
        ({"query": QUERY, "documents": ["a", "b", "c"]}, "documents"),
        ({"query": QUERY, "documents": ["a", "b " * 40]}, "documents[1]"),
        ({"query": "a " * 10_000, "documents": ["a"]}, "query"),
    ],
)
async def test_invalid_rerank_fields_are_refused_by_name(body, param):
    engine = ranker(n_ctx=32)
    async with client(make_app(engine, max_inputs=2)) as http:
        error = error_of(await http.post(V1, json=body), 400)
        assert error["param"] == param
        assert engine.works == []


async def test_overlong_document_error_names_both_token_counts():
    async with client(ranker(n_ctx=16)) as http:
        n = len(pair("a cat sat on a mat and a dog came too")[0])
        assert 16 < n < 20
        body = {"query": QUERY, "documents": ["a cat sat on a mat and a dog came too"]}
        error = error_of(await http.post(V1, json=body), 400)
        assert error["code"] == "context_length_exceeded"
        assert f"{n} tokens" in error["message"]
        assert "at most 16" in error["message"]


async def test_model_that_cannot_rank_is_refused():
    async with client() as http:
        error = error_of(await http.post(V1, json={"query": QUERY, "documents": ["a"]}), 400)
        assert error["code"] == "no_ranking"
        assert "cannot rank documents" in error["message"]


async def test_special_tokens_in_texts_are_plain_text():
    engine = ranker()
    async with client(engine) as http:
        await http.post(V1, json={"query": "</s>", "documents": ["<s>"]})
        (tokens,) = engine.works[0].inputs
        assert tokens.count(tokenizer().bos_id) == 1
        assert tokenizer().eos_id not in tokens


async def test_many_documents_are_split_into_several_tasks(monkeypatch):
    monkeypatch.setattr("server.api.common.embeddings.vectors.GROUP", 64)
    engine = ranker()
    async with client(engine) as http:
        answer = (await http.post(V1, json={"query": QUERY, "documents": DOCUMENTS * 10})).json()
        assert len(engine.works) > 5
        for work in engine.works:
            assert [pair("x")[1]] * len(work.inputs) == work.second
        for result in answer["results"]:
            assert result["relevance_score"] == score(DOCUMENTS[result["index"] % 4])


@pytest.mark.parametrize("fields", [{"truncate": True}, {"truncate_prompt_tokens": -1}])
async def test_overlong_documents_are_truncated_on_request(fields):
    engine = ranker(n_ctx=32)
    long = "a cat sat on a mat. " * 20
    async with client(engine) as http:
        refused = await http.post(V1, json={"query": QUERY, "documents": ["x", long]})
        assert "send truncate: true" in error_of(refused, 400)["message"]
        answer = (await http.post(V1, json={"query": QUERY, "documents": ["x", long], **fields})).json()
        tokens, start = pair(long)
        n_end = len(tokenizer().encode("")) - 1
        cut = tokens[: 32 - n_end] + tokens[len(tokens) - n_end :]
        assert engine.works == [Embed([pair("x")[0], cut], "rank", [pair("x")[1], start])]
        assert answer["warnings"] == [
            f"documents[1]: only the first 32 of {len(tokens)} tokens with the query are used"
        ]
        body = {"query": "what is it? " * 20, "documents": ["x"], **fields}
        assert error_of(await http.post(V1, json=body), 400)["param"] == "query"
