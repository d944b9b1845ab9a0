"""GET /health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from server.api.common.replies.model_info import public_info
from server.dependencies import StateDep
from server.http.route import Route
from server.registry.served_model import ServedModel
from server.worker.model_use import model_use

router = APIRouter(route_class=Route)
_ORDER = ("failed", "stalled", "stopped", "restarting", "loading")


_DETAILS = {  # `Engine.detail` is for operators: a reason may name files and lines of code
    "failed": "the model cannot be loaded or its engine keeps failing; see the server's log",
    "stalled": "the engine shows no progress; it is replaced if it does not recover",
    "draining": "will be unloaded once the requests that use it have ended",
}
_WITHOUT_PROGRESS = ("ready", "unloaded", "draining")


def _state(model: ServedModel) -> str:
    engine = model.engine
    if engine is None or model.draining:
        return model.state
    return "stalled" if engine.state == "ready" and engine.stalled else engine.state


def _is_expected(model: ServedModel, state: str) -> bool:
    """Whether the model should always be loaded, so that its state determines the server's."""
    return not model.in_folder and (model.starting or model.load is None or state != "loading")


@router.get("/health", response_model=None)  # only described: the next one, added first, answers
@router.api_route("/health", methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
@router.api_route("/v1/health", methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
async def health(state: StateDep) -> Response:
    """200 when every model answers; 503 while one is loading, restarting, stalled or failed. Needs no key.

    Models that are loaded on request are listed, but do not affect the status.
    """
    models: dict[str, Any] = {}
    states, progress = set(), []
    for model in state.registry.models.values():
        engine, now = model.engine, _state(model)
        if _is_expected(model, now):
            states.add(now)
            progress.append(model.progress)
        entry: dict[str, Any] = {"state": now, "restarts": 0 if engine is None else engine.restarts}
        if now not in _WITHOUT_PROGRESS:
            entry["progress"] = round(model.progress, 4)
        if now != "ready":
            entry["detail"] = _DETAILS.get(now, now)
        if engine is not None:
            if now == "loading":
                entry["detail"] = engine.detail
            if engine.info is not None:
                entry |= public_info(engine.info)
            if now in ("ready", "restarting", "stalled"):  # the tokenizer is loaded, too
                entry["use"] = model_use(engine, state.chat_template)
        models[model.name] = entry
    status = "stopping" if state.stopping else next((s for s in _ORDER if s in states), "ok")
    body: dict[str, Any] = {"status": status, "models": models}
    if status == "loading":
        body["progress"] = round(min(progress), 4)
    headers = {} if status == "ok" else {"retry-after": "2"}
    return JSONResponse(
        body, 200 if status == "ok" else 503, headers={**headers, "cache-control": "no-store"}
    )
