"""Every route with the decision who may call it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.http.middleware.access import Access, required_access
from support.api.http import client, error_of
from support.api.routes import every_path
from support.fakes.engine import make_app

# A new route needs a line here, and in `access` if it is not for every client with a key.
PUBLIC = """
GET / HEAD /
GET /docs HEAD /docs
GET /redoc HEAD /redoc
GET /health HEAD /health
GET /v1/health HEAD /v1/health
GET /page/{path:path} HEAD /page/{path:path}
"""
ADMIN = """
POST /slots/{id_slot}
POST /lora-adapters
POST /api/pull
DELETE /api/delete
POST /v1/models/load POST /models/load
POST /v1/models/unload POST /models/unload
"""
KEY = """
POST /v1/chat/completions POST /chat/completions
POST /v1/chat/completions/input_tokens POST /chat/completions/input_tokens
POST /v1/completions POST /completions
POST /v1/embeddings POST /embeddings
POST /v1/responses POST /responses
POST /v1/responses/input_tokens POST /responses/input_tokens
GET /v1/responses/{id} DELETE /v1/responses/{id}
POST /v1/responses/{id}/cancel
GET /v1/responses/{id}/input_items
POST /v1/conversations
GET /v1/conversations/{id} POST /v1/conversations/{id} DELETE /v1/conversations/{id}
GET /v1/conversations/{id}/items POST /v1/conversations/{id}/items
GET /v1/conversations/{id}/items/{item_id} DELETE /v1/conversations/{id}/items/{item_id}
GET /models/sse GET /v1/models GET /models GET /v1/models/{id:path}
POST /v1/messages POST /v1/messages/count_tokens
POST /completion POST /infill POST /embedding
POST /rerank POST /reranking POST /v1/rerank POST /v1/reranking
POST /tokenize POST /detokenize POST /apply-template GET /tokenizer_info
GET /props POST /props GET /slots GET /lora-adapters
POST /api/chat POST /api/generate POST /api/embed POST /api/embeddings POST /api/show
GET /api/tags HEAD /api/tags GET /api/ps GET /api/version HEAD /api/version
POST /api/create POST /api/copy POST /api/push HEAD /api/blobs/{digest} POST /api/blobs/{digest}
GET /v1/requests DELETE /v1/requests/{id}
POST /v1/plan
GET /metrics
GET /openapi.json
"""


def _listed(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


DECISIONS = {
    route: access
    for access, text in ((Access.PUBLIC, PUBLIC), (Access.KEY, KEY), (Access.ADMIN, ADMIN))
    for route in _listed(text)
}


def url(path: str) -> str:
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


def test_every_route_has_an_access_decision():
    assert every_path(make_app()) == set(DECISIONS)


def test_every_route_needs_what_was_decided():
    assert {route: required_access(route[0], url(route[1])) for route in DECISIONS} == DECISIONS


@pytest.mark.parametrize("path", ["/healthx", "/docs/", "/page", "/v1/health/x", "//", "/no/such/route"])
def test_other_paths_need_a_key(path):
    assert required_access("GET", path) is Access.KEY


@pytest.mark.asyncio
async def test_every_route_is_closed_without_a_key_except_the_public_ones():
    async with client(make_app(api_key=["sesame", "second-key"])) as http:
        for (method, path), access in DECISIONS.items():
            response = await http.request(method, url(path))
            if access is Access.PUBLIC:
                assert response.status_code in (200, 308, 404), (method, path)  # no such file of the page
            else:
                assert response.status_code == 401, (method, path)
        assert error_of(await http.get("/no/such/route"), 401)["code"] == "invalid_api_key"


def test_documentation_lists_the_admin_routes():
    page = (Path(__file__).parents[4] / "docs/keys.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| a key with the role `admin` |"))
    listed = re.findall(r"`((?:POST|DELETE) [^`]+)`", row)
    assert sorted(listed) == sorted(re.findall(r"(?:POST|DELETE) \S+", ADMIN))
