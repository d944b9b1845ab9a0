"""How far a model is, in the words of llama-server's router."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.api.common.replies.model_status import model_status
from server.registry.served_model import Residency, ServedModel
from server.worker.errors import LoadFailed

LOADING = {"stages": ["text_model"], "current": "text_model", "value": 0.123}


@pytest.mark.parametrize(
    ("state", "fields", "status"),
    [
        (None, {}, {"value": "unloaded"}),
        (None, {"failure": LoadFailed("ModelError", "x")}, {"value": "unloaded", "failed": True}),
        ("loading", {}, {"value": "loading", "progress": LOADING}),
        ("ready", {}, {"value": "loaded"}),
        ("ready", {"draining": True}, {"value": "loaded"}),
        ("failed", {}, {"value": "unloaded", "failed": True}),
    ],
)
def test_states_have_the_names_of_llama_servers_router(state: str | None, fields: Any, status: Any) -> None:
    model = ServedModel("a", Path("a.gguf"))
    if state is not None:
        engine: Any = SimpleNamespace(state=state, progress=0.1234)
        model.residency = Residency(engine)
    for name, value in fields.items():
        setattr(model, name, value)
    assert model_status(model) == status
