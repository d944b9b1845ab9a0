"""The stores of an application."""

from __future__ import annotations

import pytest
from fastapi import Request

from server.api.openai.stores import Stores, get_stores
from server.generation.request_context import AccessRecord, RequestContext
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


async def stores_of(app) -> Stores:
    request = Request({"type": "http", "app": app})
    return await get_stores(request, RequestContext(app.state.ggserve, AccessRecord("id")))


async def test_requests_share_the_applications_stores_and_limits():
    app = make_app(max_stored_responses=3, responses_ttl_s=7.0, responses_max_bytes=500)
    stores = await stores_of(app)
    for store in (stores.responses, stores.conversations):
        assert (store.most, store.ttl_s, store.max_bytes) == (3, 7.0, 500)
    assert await stores_of(app) is stores
    assert await stores_of(make_app()) is not stores
