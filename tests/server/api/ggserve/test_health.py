"""GET /health and GET /v1/models."""

from __future__ import annotations

import pytest

from support.api.http import client, error_of
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


async def health_of(*engines: FakeEngine):
    async with client(make_app({engine.name: engine for engine in engines})) as http:
        response = await http.get("/health")
        again = await http.get("/v1/health")
        head = await http.head("/health")
    assert response.json() == again.json()
    assert head.status_code == response.status_code
    return response.status_code, response.json()


def engine(name="stories", state="ready", **attributes) -> FakeEngine:
    fake = FakeEngine(name=name)
    fake.state = state
    for key, value in attributes.items():
        setattr(fake, key, value)
    return fake


async def test_health_when_ready_names_the_models():
    status, body = await health_of(engine(info={"placement": ["CPU"] * 4, "path": "/secret/x.gguf"}))
    assert status == 200
    assert body == {
        "status": "ok",
        "models": {"stories": {"state": "ready", "restarts": 0, "placement": ["CPU"] * 4, "use": "chat"}},
    }


async def test_health_while_loading_reports_progress():
    status, body = await health_of(engine(state="loading", progress=0.25, info=None, detail="weights"))
    assert status == 503
    assert body["status"] == "loading"
    assert body["progress"] == 0.25
    assert body["models"]["stories"] == {
        "state": "loading",
        "restarts": 0,
        "progress": 0.25,
        "detail": "weights",
    }


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"state": "restarting"}, "restarting"),
        ({"state": "failed"}, "failed"),
        ({"stalled": True}, "stalled"),
        ({"state": "stopped"}, "stopped"),
    ],
)
async def test_health_reports_the_worst_state_with_503(attributes, status):
    code, body = await health_of(engine("one"), engine("two", **attributes), engine("three", state="loading"))
    assert code == 503
    assert body["status"] == status  # the worst of them
    assert body["models"]["one"]["state"] == "ready"
    assert body["models"]["two"]["state"] == status


@pytest.mark.parametrize("attributes", [{"state": "failed"}, {"stalled": True}, {"state": "restarting"}])
async def test_failure_reason_is_logged_but_not_reported(attributes):
    _, body = await health_of(engine(detail="/secret/x.gguf: No such file", info=None, **attributes))
    assert "secret" not in str(body)
    assert body["models"]["stories"]["detail"]


async def test_models_are_listed_and_found_by_id():
    app = make_app({name: engine(name) for name in ("a", "org/b:c")})
    async with client(app) as http:
        listed = (await http.get("/v1/models")).json()
        one = (await http.get("/v1/models/org/b:c")).json()
        none = await http.get("/v1/models/org")
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a", "org/b:c"]
    assert one == listed["data"][1]
    assert one["object"] == "model"
    assert isinstance(one["created"], int)
    assert isinstance(one["owned_by"], str)
    assert one["meta"]["n_ctx"] == 512
    assert "secret" not in str(listed)
    assert error_of(none, 404)["code"] == "model_not_found"
