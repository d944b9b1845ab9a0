"""POST /v1/models/load and /unload, POST /models/load and /unload, GET /models/sse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from server.api.common.replies.errors import error_body
from server.api.common.replies.model_status import model_status
from server.api.common.requests.parser import check_fields
from server.api.common.schema import Reply, Schema, field, required
from server.dependencies import ContextDep, StateDep
from server.errors import ApiError, bad_request
from server.generation.request_context import RequestContext, load_error
from server.http.json_reply import json_reply
from server.http.json_route import json_router
from server.http.route import Route
from server.http.sse import event, event_stream, while_connected
from server.registry.registry import ModelRegistry
from server.registry.served_model import ModelState, ServedModel
from server.state import State
from server.worker.errors import LoadFailed


class ModelNameRequest(Schema):
    model: Annotated[str, Field(min_length=1, max_length=512)] = required("one of /v1/models", "stories")


class LoadModelRequest(ModelNameRequest):
    stream: bool | None = field("report progress in server-sent events", False)
    reload: bool | None = field(
        "load the current file even if the model is loaded; the old engine finishes its requests",
        True,
    )


class ModelChangedReply(Reply):
    success: bool = required("always true", True)
    model: str = required("the model's name", "stories")
    state: str = required("as in /v1/models", "ready")


PROGRESS_S = 0.2  # between two looks at a model that is being loaded


async def model_events(
    registry: ModelRegistry, names: Collection[str] | None = None
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """State changes from now on, of these models or of all.

    Yields None from time to time if nothing changes.
    """
    before = _statuses(registry, names)
    while True:
        await registry.changes.wait(PROGRESS_S)
        now = _statuses(registry, names)
        for name in before.keys() - now.keys():
            yield {"model": name, "event": "model_remove"}
        if now.keys() - before.keys():
            yield {"model": "*", "event": "models_reload"}
        for name, status in now.items():
            if status != before.get(name):
                yield status_event(name, status)
        if now == before:
            yield None
        before = now


def status_event(name: str, status: dict[str, Any]) -> dict[str, Any]:
    data = {"status": status["value"], **{key: status[key] for key in status if key != "value"}}
    return {"model": name, "event": "model_status", "data": data}


def _statuses(registry: ModelRegistry, names: Collection[str] | None) -> dict[str, dict[str, Any]]:
    return {
        name: model_status(model) for name, model in registry.models.items() if names is None or name in names
    }


router, with_body = APIRouter(route_class=Route), json_router()
_REPLY: dict[int | str, dict[str, Any]] = {200: {"model": ModelChangedReply}}


@with_body.post("/v1/models/load", response_model=None, responses=_REPLY)
async def load(body: LoadModelRequest, request: Request, context: ContextDep) -> Response:
    """Load a model. The response comes once it is loaded; with `stream`, events report the progress first."""
    model, registry = _named(body, context), context.state.registry
    if body.stream:
        return event_stream(_load_events(model, bool(body.reload), context))
    try:
        await while_connected(request.receive, registry.load(model, again=bool(body.reload)))
    except LoadFailed as failure:
        raise load_error(model, failure) from None
    return _changed(model, context)


@with_body.post("/v1/models/unload", response_model=None, responses=_REPLY)
async def unload(body: ModelNameRequest, request: Request, context: ContextDep) -> Response:
    """Unload a model once no request uses it, then respond. A later request loads it again."""
    model = _named(body, context)
    await while_connected(request.receive, context.state.registry.unload(model))
    return _changed(model, context)


@with_body.post("/models/load", response_model=None, include_in_schema=False)
async def begin_load(body: ModelNameRequest, context: ContextDep) -> Response:
    """Begin to load a model that is not loaded, and respond at once, as llama-server does."""
    model = _named(body, context)
    if model.state in (ModelState.LOADING, ModelState.READY):
        raise bad_request("model: is already running", "model", "model_loaded")
    context.state.registry.begin(model)
    return json_reply({"success": True}, context)


@with_body.post("/models/unload", response_model=None, include_in_schema=False)
async def begin_unload(body: ModelNameRequest, context: ContextDep) -> Response:
    """Begin to unload a loaded model, and respond at once, as llama-server does."""
    model = _named(body, context)
    if model.state in (ModelState.UNLOADED, ModelState.FAILED):
        raise bad_request("model: is not running", "model", "model_not_loaded")
    context.state.registry.begin_unload(model)
    return json_reply({"success": True}, context)


@router.get("/models/sse", response_model=None, include_in_schema=False)
async def sse(state: StateDep) -> Response:
    """Stream the state changes of all models as server-sent events, as llama-server's router does."""
    return event_stream(_all_events(state))


def _named(body: ModelNameRequest, context: RequestContext) -> ServedModel:
    check_fields(body, context)
    return context.find_model(body.model)


def _changed(model: ServedModel, context: RequestContext) -> Response:
    return json_reply({"success": True, "model": model.name, "state": model.state}, context)


async def _load_events(
    model: ServedModel, again: bool, context: RequestContext
) -> AsyncGenerator[bytes, None]:
    """Events until the model is loaded or the load fails. The load continues if the client disconnects."""
    registry = context.state.registry
    load = registry.begin(model, again=again)
    async with aclosing(model_events(registry, [model.name])) as events:
        yield event(status_event(model.name, model_status(model)))
        async for change in events:
            if change is not None:
                yield event(change)
            if load.done():
                break
    error: ApiError | None = None
    try:
        await registry.finished(load)
    except LoadFailed as failure:
        error = load_error(model, failure)
    if error is not None:
        yield event(error_body(error))
    yield b"data: [DONE]\n\n"


async def _all_events(state: State) -> AsyncGenerator[bytes, None]:
    """Events until the server stops."""
    time = asyncio.get_running_loop().time
    yield b": models\n\n"
    last = time()
    async with aclosing(model_events(state.registry)) as events:
        async for change in events:
            if state.stopping:
                break
            if change is not None or time() - last >= state.settings.keep_alive_s:
                last = time()
                yield event(change) if change is not None else b": keep-alive\n\n"
