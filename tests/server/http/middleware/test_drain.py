"""While the server drains: what is refused, and what is still answered."""

from __future__ import annotations

import pytest

from support.api.http import CHAT, client, error_of, user
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


@pytest.fixture
def draining():
    app = make_app()
    app.state.ggserve.stopping = True
    return app


@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/props")])
async def test_a_new_request_while_draining_is_refused_and_closes_its_connection(draining, method, path):
    async with client(draining) as http:
        response = await http.request(method, path, json={"messages": user("hi")})
    assert error_of(response, 503)["code"] == "shutting_down"
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/metrics", "/v1/requests"])
async def test_health_and_requests_while_draining_are_still_answered(draining, path):
    async with client(draining) as http:
        response = await http.get(path)
    assert response.headers.get("connection") != "close"
    assert "shutting_down" not in response.text or path.endswith("health")


async def test_a_request_while_draining_can_be_cancelled(draining):
    async with client(draining) as http:
        assert error_of(await http.delete("/v1/requests/other"), 404)
        assert error_of(await http.post("/v1/responses/resp_other/cancel"), 404)
