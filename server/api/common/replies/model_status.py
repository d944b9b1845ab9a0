"""How far a model is, in the words of llama-server's router."""

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
    """`value`: unloaded, loading or loaded; `progress` of loading; `failed` if it was to be loaded."""
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
