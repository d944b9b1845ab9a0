"""GET /v1/models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.deps import Engine, State, StateDep

router = APIRouter()


def _model(engine: Engine, state: State) -> dict[str, Any]:
    found = {
        "id": engine.name,
        "object": "model",
        "created": int(state.started),
        "owned_by": "ggserve",
        "state": engine.state,
    }
    if engine.info is not None:
        # Paths are nobody's business who may only ask for text.
        found["meta"] = public(engine.info)
    return found


def public(info: dict[str, Any]) -> dict[str, Any]:
    """What a model's description may tell clients: everything but paths."""
    return {key: value for key, value in info.items() if key not in ("path", "file")}


@router.get("/v1/models")
async def models(state: StateDep) -> dict[str, Any]:
    """The models served here."""
    return {"object": "list", "data": [_model(engine, state) for engine in state.engines.values()]}


@router.get("/v1/models/{id:path}")
async def model(id: str, state: StateDep) -> dict[str, Any]:
    """One model; its id may hold slashes. `meta` tells where its layers are."""
    return _model(state.engine(id, ready=False), state)
