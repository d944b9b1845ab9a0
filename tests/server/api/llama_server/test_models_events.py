"""Changes of models as events."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.api.llama_server import models as routes
from server.api.llama_server.models import model_events
from server.registry.served_model import ServedModel
from support.fakes.registry import Models

pytestmark = pytest.mark.asyncio


async def test_changes_are_reported_once(monkeypatch):
    monkeypatch.setattr(routes, "PROGRESS_S", 0.001)
    models = Models("ab")
    changes = model_events(models.registry)
    assert await anext(changes) is None
    await models.use("a")
    assert await anext(changes) == {"model": "a", "event": "model_status", "data": {"status": "loaded"}}
    assert await anext(changes) is None
    models.registry.models["c"] = ServedModel("c", Path("c.gguf"), in_folder=True)
    assert await anext(changes) == {"model": "*", "event": "models_reload"}
    assert (await anext(changes))["model"] == "c"
    del models.registry.models["b"]
    assert await anext(changes) == {"model": "b", "event": "model_remove"}
    await changes.aclose()


async def test_events_of_some_models_leave_out_others(monkeypatch):
    monkeypatch.setattr(routes, "PROGRESS_S", 0.001)
    models = Models("ab")
    changes = model_events(models.registry, ["b"])
    await models.use("a")
    assert await anext(changes) is None
    await changes.aclose()
