"""POST /api/embed and /api/embeddings."""

from __future__ import annotations

import asyncio
import math

import pytest

from support.api.http import Live, client
from support.api.routes import refusal
from support.fakes.engine import N_EMBD, FakeEngine, make_app

pytestmark = pytest.mark.asyncio
EMBED, OLDER = "/api/embed", "/api/embeddings"
LONG = "a cat " * 600


async def post(path, engine=None, **body):
    async with client(engine) as http:
        response = await http.post(path, json={"model": "stories:latest", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_each_text_gets_a_vector_of_length_1():
    made = await post(EMBED, input=["a cat", "a dog"])
    assert made["model"] == "stories:latest"
    assert [len(vector) for vector in made["embeddings"]] == [N_EMBD, N_EMBD]
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in made["embeddings"])
    assert made["prompt_eval_count"] == 6
    assert made["total_duration"] > 0
    assert made["load_duration"] == 0
    alone = await post(EMBED, input="a cat")
    assert alone["embeddings"] == made["embeddings"][:1]
    short = (await post(EMBED, input="a cat", dimensions=3))["embeddings"][0]
    assert len(short) == 3
    assert math.hypot(*short) == pytest.approx(1)


async def test_older_route_gives_the_vector_as_the_model_makes_it():
    raw = (await post(OLDER, prompt="a cat"))["embedding"]
    assert math.hypot(*raw) > 1.5
    unit = (await post(EMBED, input="a cat"))["embeddings"][0]
    assert [x / math.hypot(*raw) for x in raw] == pytest.approx(unit, abs=1e-6)


async def test_texts_that_are_too_long_are_cut_with_a_warning_or_refused():
    made = await post(EMBED, input=LONG)
    assert made["prompt_eval_count"] == 512
    assert made["warnings"][0].startswith("input: only the first 512 of ")
    assert (await post(OLDER, prompt=LONG))["warnings"][0].startswith("prompt: only the first 512 of ")
    async with client() as http:
        body = {"model": "stories", "input": ["a", LONG], "truncate": False}
        assert refusal(await http.post(EMBED, json=body), EMBED)["param"] == "input[1]"


async def test_nothing_to_embed_only_asks_for_the_model():
    engine = FakeEngine()
    assert await post(EMBED, engine, input=[]) == {"model": "stories:latest", "embeddings": []}
    assert await post(OLDER) == {"embedding": []}
    assert engine.works == []


@pytest.mark.parametrize(("path", "text"), [(EMBED, "input"), (OLDER, "prompt")])
async def test_fields_without_effect_are_named(path, text):
    made = await post(path, **{text: "a"}, options={"num_ctx": 5, "x": None}, keep_alive="5m", foo=1)
    assert set(made["warnings"]) == {
        "foo has no effect",
        "keep_alive has no effect: models stay loaded",
        "options.num_ctx has no effect",
    }
    assert "warnings" not in await post(path, **{text: "a"}, keep_alive=-1)


async def test_client_that_leaves_ends_the_work():
    engine = FakeEngine()
    engine.gate.clear()
    app = make_app(engine)
    async with app.router.lifespan_context(app):
        live = Live(app, EMBED, {"model": "stories", "input": "a"})
        while not engine.works:
            await asyncio.sleep(0)
        live.leave()
        await live.finish()
    assert engine.left == ["Embed"]
