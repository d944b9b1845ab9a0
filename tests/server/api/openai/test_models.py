"""GET /v1/models in pages, for the clients of both APIs."""

from __future__ import annotations

import pytest

from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
NAMES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, "abcd", False),
        ({"limit": 3}, "abc", True),
        ({"limit": 3, "after_id": "c"}, "d", False),
        ({"limit": 2, "after_id": "a"}, "bc", True),
        ({"after_id": "d"}, "", False),
        ({"before_id": "c"}, "ab", False),
        ({"limit": 1, "before_id": "c"}, "b", True),
        ({"after_id": "a", "before_id": "d", "limit": 1}, "b", True),
    ],
)
async def test_models_are_listed_in_pages(query, names, more):
    async with client(make_app({name: FakeEngine(name=name) for name in NAMES})) as http:
        data = (await http.get("/v1/models", params=query)).json()
    assert [model["id"] for model in data["data"]] == list(names)
    assert (data["first_id"], data["last_id"]) == ((names[0], names[-1]) if names else (None, None))
    assert (data["object"], data["has_more"]) == ("list", more)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "x"}, {"after_id": "e"}, {"before_id": ""}])
async def test_invalid_page_parameters_are_refused(query):
    async with client() as http:
        error = error_of(await http.get("/v1/models", params=query), 400)
    assert error["param"] == next(iter(query))


async def test_model_has_the_fields_of_openai_and_anthropic():
    engine = FakeEngine(n_ctx=512)
    async with client(engine) as http:
        (model,) = (await http.get("/v1/models")).json()["data"]
        engine.info = None  # not loaded yet
        (loading,) = (await http.get("/v1/models")).json()["data"]
    assert (model["object"], model["type"]) == ("model", "model")
    assert model["created_at"].endswith("Z")
    assert (model["max_input_tokens"], model["max_tokens"]) == (512, 512)
    assert "max_tokens" not in loading


async def test_single_model_has_no_router_status():
    async with client(make_app(FakeEngine())) as http:
        (card,) = (await http.get("/v1/models")).json()["data"]
        assert "status" not in card
    async with client(make_app({name: FakeEngine(name=name) for name in "ab"})) as http:
        cards = (await http.get("/v1/models")).json()["data"]
        assert [card["status"]["value"] for card in cards] == ["loaded", "loaded"]
