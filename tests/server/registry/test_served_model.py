"""The states of one model, and its leases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.registry.served_model import Residency, ServedModel
from server.worker.errors import LoadFailed


def model(state: str | None, **fields: Any) -> ServedModel:
    served = ServedModel("a", Path("a.gguf"))
    if state is not None:
        engine: Any = SimpleNamespace(state=state, progress=0.25)
        served.residency = Residency(engine)
    for name, value in fields.items():
        setattr(served, name, value)
    return served


@pytest.mark.parametrize(
    ("served", "state"),
    [
        (model(None), "unloaded"),
        (model(None, load=object()), "loading"),
        (model(None, failure=LoadFailed("ModelError", "bad")), "failed"),
        (model("loading"), "loading"),
        (model("ready"), "ready"),
        (model("restarting"), "ready"),
        (model("ready", draining=True), "draining"),
        (model("stopped"), "draining"),
        (model("failed"), "failed"),
        (model("failed", load=object()), "loading"),
    ],
)
def test_state_follows_the_engine(served: ServedModel, state: str) -> None:
    assert served.state == state


def test_progress_is_that_of_the_loading_engine() -> None:
    successor: Any = SimpleNamespace(state="loading", progress=0.75)
    assert model(None).progress == 0
    assert model("loading").progress == 0.25
    assert model("ready", successor=successor).progress == 0.75
    assert model("failed").progress == 0


def test_model_is_idle_while_nobody_uses_or_awaits_it() -> None:
    served = model("ready")
    assert served.residency is not None
    assert served.is_idle
    served.residency.n_users = 1
    assert not served.is_idle
    served.residency.n_users, served.n_waiting = 0, 1
    assert not served.is_idle
    assert not model(None).is_idle


def test_only_a_loaded_model_expires() -> None:
    assert model("ready", keep_alive_s=5.0, last_used=10.0).expires_at(12.0) == 15
    assert model("ready", keep_alive_s=5.0, last_used=10.0, n_waiting=1).expires_at(12.0) == 17
    assert model("ready").expires_at(12.0) is None
    assert model("failed", keep_alive_s=5.0).expires_at(12.0) is None
    assert model(None, keep_alive_s=5.0).expires_at(12.0) is None
