"""GET /health."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from server.api.common.replies.model_info import public_info
from server.dependencies import StateDep
from server.worker.engine import Engine
from server.worker.model_use import model_use

router = APIRouter()
_ORDER = ("failed", "stalled", "stopped", "restarting", "loading")


_DETAILS = {  # `Engine.detail` is for operators: a reason may name files and lines of code
    "failed": "the model cannot be loaded or its engine keeps failing; see the server's log",
    "stalled": "the engine gives no sign of progress; it is replaced if it does not recover",
}


def _state(engine: Engine) -> str:
    return "stalled" if engine.state == "ready" and engine.stalled else engine.state


@router.get("/health", response_model=None)  # only described: the next one, added first, answers
@router.api_route("/health", methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
@router.api_route("/v1/health", methods=["GET", "HEAD"], response_model=None, include_in_schema=False)
async def health(state: StateDep) -> Response:
    """200 when every model answers; 503 while one loads, restarts, stalls or has failed. Needs no key."""
    models: dict[str, Any] = {}
    states = set()
    for engine in state.engines.values():
        now = _state(engine)
        states.add(now)
        entry: dict[str, Any] = {"state": now, "restarts": engine.restarts}
        if now != "ready":
            entry["progress"] = round(engine.progress, 4)
            entry["detail"] = engine.detail if now == "loading" else _DETAILS.get(now, now)
        if engine.info is not None:
            entry |= public_info(engine.info)
        if now in ("ready", "restarting", "stalled"):  # the tokenizer is loaded, too
            entry["use"] = model_use(engine, state.chat_template)
        models[engine.name] = entry
    status = "stopping" if state.stopping else next((s for s in _ORDER if s in states), "ok")
    body: dict[str, Any] = {"status": status, "models": models}
    if status == "loading":
        body["progress"] = round(min(engine.progress for engine in state.engines.values()), 4)
    headers = {} if status == "ok" else {"retry-after": "2"}
    return JSONResponse(
        body, 200 if status == "ok" else 503, headers={**headers, "cache-control": "no-store"}
    )
