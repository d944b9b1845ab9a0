"""Routes that are prepared when they are first used."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI

from server.api.common.schema import Reply, Schema, required
from server.http.route import Route


class Question(Schema):
    text: str = required("what is asked", "why?")


class Answer(Reply):
    text: str = required("the answer", "because")


async def ask(body: Question) -> dict[str, str]:
    """Ask."""
    return {"text": body.text + "!"}


def new_route() -> Route:
    return Route("/ask", ask, methods=["POST"], response_model=None, responses={200: {"model": Answer}})


def is_prepared(route: Route) -> bool:
    return "dependant" in vars(route)


@pytest.mark.asyncio
async def test_request_prepares_the_route_it_matches():
    routes = [new_route(), Route("/other", ask, methods=["POST"])]
    app = FastAPI(routes=routes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        assert not any(map(is_prepared, routes))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (await http.post("/ask", json={"text": "why"})).json() == {"text": "why!"}
        assert (await http.post("/ask", json={"text": 1})).status_code == 422
        assert (await http.get("/ask")).status_code == 405
    assert [*map(is_prepared, routes)] == [True, False]


def test_prepare_leaves_no_validator_to_the_first_request():
    route = new_route()
    route.prepare()
    assert route.body_field is not None
    assert type(route.body_field._type_adapter.validator).__name__ == "SchemaValidator"


def test_prepare_by_several_threads_happens_once():
    route = new_route()
    with ThreadPoolExecutor(8) as threads:
        apps = {*threads.map(lambda _: route.app, range(64))}
    assert len(apps) == 1


def test_every_route_describes_its_replies():
    document = FastAPI(routes=[new_route()]).openapi()
    (operation,) = document["paths"]["/ask"].values()
    content = operation["responses"]["200"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/Answer"}
    assert document["components"]["schemas"]["Answer"]["properties"]["text"]["description"] == "the answer"


def test_unknown_route_attribute_is_an_error():
    with pytest.raises(AttributeError, match="absent"):
        new_route().absent  # noqa: B018
