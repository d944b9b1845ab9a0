"""What a model is for, and the texts that say so: errors, /health, the example at start."""

from __future__ import annotations

import json
import re

import pytest

from server.cli.serving import listen
from server.http.server import EXAMPLES, HttpServer
from server.worker.model_use import model_use
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine, make_app

EMBEDS = {"generates": False, "pooling": "mean"}
RANKS = {"generates": False, "pooling": "rank", "n_scores": 1}


class NoTemplate:
    """A tokenizer of a model without a chat template."""

    chat_template = None


def engine_for(use: str) -> FakeEngine:
    engine = FakeEngine()
    engine.info |= {"embeddings": EMBEDS, "ranking": RANKS}.get(use, {})
    if use == "text":
        engine.tokenizer = NoTemplate()
    return engine


@pytest.mark.parametrize("use", ["chat", "text", "embeddings", "ranking"])
def test_model_use_follows_the_models_abilities(use: str) -> None:
    assert model_use(engine_for(use)) == use


def test_a_generating_model_with_scores_ranks_and_a_template_makes_a_chat_model() -> None:
    engine = FakeEngine()
    engine.info |= {"n_scores": 1, "pooling": "rank"}
    assert model_use(engine) == "ranking"
    assert model_use(engine_for("text"), "{{ messages }}") == "chat"
    engine.info = None  # still loading
    assert model_use(engine) == "text"


@pytest.mark.parametrize("use", list(EXAMPLES))
def test_example_at_start_is_one_the_model_answers(use: str) -> None:
    sockets = listen("127.0.0.1", 0)
    try:
        engine = engine_for(use)
        server = HttpServer(make_app(engine), sockets, None, 0.0)
        example = server.example()
    finally:
        for sock in sockets:
            sock.close()
    path, fields = EXAMPLES[use]
    assert f"{server.url}{path} " in example
    body = json.loads(re.search(r"-d '(.*)'", example)[1])
    assert body == {"model": engine.name, **fields}


@pytest.mark.asyncio
@pytest.mark.parametrize("use", ["chat", "embeddings", "ranking"])
async def test_the_examples_are_answered_and_health_says_what_the_model_is_for(use: str) -> None:
    engine = engine_for(use)
    path, fields = EXAMPLES[use]
    async with client(make_app(engine)) as http:
        response = await http.post(path, json={"model": engine.name, **fields})
        assert response.status_code == 200, response.text
        assert (await http.get("/health")).json()["models"][engine.name]["use"] == use


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("use", "advice"), [("embeddings", "makes embeddings"), ("ranking", "ranks documents")]
)
async def test_errors_name_a_route_the_model_answers(use: str, advice: str) -> None:
    engine = engine_for(use)
    async with client(make_app(engine)) as http:
        for path, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": user("x")})):
            message = error_of(await http.post(path, json=body), 400)["message"]
            assert message == f"model: 'stories' {advice} and cannot generate text; use {EXAMPLES[use][0]}"
        if use == "embeddings":
            body = {"query": "x", "documents": ["y"]}
            message = error_of(await http.post("/v1/rerank", json=body), 400)["message"]
            assert "/v1/embeddings" in message
