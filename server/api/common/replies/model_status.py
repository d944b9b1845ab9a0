"""The load status of a model, in the terms of llama-server's router."""

from __future__ import annotations

from typing import Any

from server.registry.served_model import ModelState, ServedModel

_VALUES = {
    ModelState.UNLOADED: "unloaded",
    ModelState.LOADING: "loading",
    ModelState.READY: "loaded",
    ModelState.DRAINING: "loaded",
    ModelState.FAILED: "unloaded",
}


def model_status(model: ServedModel) -> dict[str, Any]:
    """`value`: unloaded, loading or loaded; `progress` while loading; `failed` if the load failed."""
    state = model.state
    status: dict[str, Any] = {"value": _VALUES[state]}
    if state is ModelState.LOADING or model.successor is not None:
        status["progress"] = {
            "stages": ["text_model"],
            "current": "text_model",
            "value": round(model.progress, 3),
        }
    if state is ModelState.FAILED:
        status["failed"] = True
    return status
