"""POST /completion: llama-server's own answer, whole and streamed."""

from __future__ import annotations

import pytest

from support.api.http import client
from support.api.llama_server import LAST, PATH, ask
from support.fakes.engine import TEXT, FakeEngine, tokenizer

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("path", [PATH, "/completions"])
async def test_response_has_every_field_clients_look_for(path):
    engine = FakeEngine(cached_n=2)
    async with client(engine) as http:
        body = (await http.post(path, json={"prompt": "Once upon", "n_predict": 5, "seed": 7})).json()
    assert set(body) == LAST
    n_prompt = len(engine.seen[0].prompt)
    assert body["content"] == TEXT[: len(body["content"])]
    assert (body["stop"], body["stop_type"], body["stopping_word"]) == (True, "limit", "")
    assert (body["tokens_predicted"], body["tokens_evaluated"]) == (5, n_prompt)
    assert body["tokens_cached"] == n_prompt + 4
    assert body["tokens"] == []
    assert body["prompt"] == tokenizer().decode(engine.seen[0].prompt, skip_special=False)
    assert (body["timings"]["predicted_n"], body["timings"]["cache_n"]) == (5, 2)
    used = body["generation_settings"]
    assert (used["n_predict"], used["seed"], used["temperature"], used["top_k"]) == (
        5,
        7,
        0.8,
        40,
    )


async def test_defaults_are_the_operators_then_llama_servers():
    engine = FakeEngine()
    await ask({"prompt": "Hi"}, engine)
    await ask({"prompt": "Hi", "temperature": 0.1}, engine, default=["top_k=7", "temperature=0.3"])
    actual = [(r.params.temperature, r.params.top_k, r.params.top_p, r.params.min_p) for r in engine.seen]
    assert actual == [(0.8, 40, 0.95, 0.05), (0.1, 7, 0.95, 0.05)]


async def test_n_predict_of_0_only_fills_the_cache():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "n_predict": 0}, engine)
    assert (body["content"], engine.seen[0].params.max_tokens) == ("", 0)
