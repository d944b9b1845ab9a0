"""The served models, and pulling and deleting models, if --allow-pull permits it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from msgspec.json import encode

from server.api.common.model_files import delete, pull
from server.api.common.replies.model_info import metadata, model_details, parameter_size
from server.api.common.requests.parser import check_fields
from server.api.ollama.formatter import error_body
from server.api.ollama.schema import OllamaNameRequest, OllamaPullRequest
from server.dependencies import ContextDep, StateDep
from server.errors import ApiError
from server.generation.request_context import unavailable_model
from server.http import ndjson
from server.http.json_reply import json_reply
from server.http.json_route import AnyTypeRoute, json_router
from server.http.route import Route
from server.models.progress import Progress
from server.registry.memory import memory_use
from server.registry.served_model import ModelState, ServedModel

# Clients use what came with a version of Ollama only from that version on: the one whose API this is.
OLLAMA_VERSION = "0.33.0"
router, with_body = APIRouter(route_class=Route), json_router(AnyTypeRoute)


@router.get("/api/version")
@router.head("/api/version", include_in_schema=False)
async def ollama_version() -> dict[str, str]:
    """Return the version of Ollama whose API this is."""
    return {"version": OLLAMA_VERSION}


@router.get("/api/tags")
@router.head("/api/tags", include_in_schema=False)
async def tags(context: ContextDep) -> dict[str, Any]:
    """List the served models, loaded or not."""
    await context.state.registry.refresh()
    models = []
    for served in [*context.state.registry.models.values()]:
        details = await model_details(served, context)
        model = {**_model(served, details.info), "modified_at": context.state.started_at}
        models.append({**model, "capabilities": details.capabilities} if details.info else model)
    return {"models": models}


@router.get("/api/ps")
async def loaded_models(state: StateDep) -> dict[str, Any]:
    """List the loaded models, with their planned memory and the time at which each will be unloaded."""
    models = []
    for model in state.registry.models.values():
        engine = model.engine
        if engine is not None and engine.info is not None:
            size, on_gpus = memory_use(engine.info)
            sizes = {"size": size, "size_vram": on_gpus, "context_length": engine.n_ctx}
            left_s = state.registry.seconds_left(model)
            end = None if left_s is None else datetime.now(UTC) + timedelta(seconds=left_s)
            expires_at = "9999-12-31T23:59:59Z" if end is None else f"{end:%Y-%m-%dT%H:%M:%S.%fZ}"
            models.append({**_model(model, engine.info), **sizes, "expires_at": expires_at})
    return {"models": models}


@with_body.post("/api/show", response_model=None)
async def show_model(body: OllamaNameRequest, context: ContextDep) -> Response:
    """Describe a model and its capabilities."""
    check_fields(body, context)
    model = context.find_model(body.model)
    if model.engine is not None and model.state in (ModelState.LOADING, ModelState.FAILED):
        raise unavailable_model(model, context.state.stopping)
    info, abilities, template, parameters = await model_details(model, context)
    description = {
        "modelfile": "",
        "parameters": "\n".join(f"{name:<30} {value}" for name, value in parameters.items()),
        "template": template,
        "details": _model(model, info)["details"],
        "model_info": metadata(model.name, info),  # VS Code lists the model by general.basename
        "capabilities": abilities,
        "modified_at": context.state.started_at,
    }
    return json_reply(description, context)


@router.post("/api/create", include_in_schema=False)
@router.post("/api/copy", include_in_schema=False)
@router.post("/api/push", include_in_schema=False)
@router.api_route("/api/blobs/{digest}", methods=["HEAD", "POST"], include_in_schema=False)
async def change_models() -> None:
    """Always 501."""
    message = "models cannot be created, copied or pushed over HTTP; start the server with --model NAME=FILE"
    raise ApiError(501, f"{message}, or --alias for another name", code="not_supported")


@with_body.post("/api/pull", response_model=None)
async def pull_model(body: OllamaPullRequest, request: Request, context: ContextDep) -> Response:
    """Download a model from the Hub; by default with a stream of JSON lines.

    This does not serve the model.
    """
    check_fields(body, context)
    name = body.model.removesuffix(":latest")
    context.warn(f"'{name}' will be served after a restart with --model {name}")
    lines = _lines(pull(name, context), context.with_warnings({"status": "success"}))
    return await ndjson.respond(request, lines, error_body, stream=body.stream is not False)


@with_body.delete("/api/delete", response_model=None)
async def delete_model(body: OllamaNameRequest, context: ContextDep) -> Response:
    """Delete a downloaded model that is not being served."""
    check_fields(body, context)
    await delete(body.model.removesuffix(":latest"), context)
    return json_reply({"status": "success"}, context)


async def _lines(progress: AsyncGenerator[Progress, None], end: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """Progress lines. The first one is available once it is known what to pull."""
    async with aclosing(progress):
        first = await anext(progress, None)
        yield {"status": "pulling manifest"}
        if first is not None:  # else the model is here already
            yield _line(first)
        async for step in progress:
            yield _line(step)
    yield end


def _line(step: Progress) -> dict[str, Any]:
    if step.status == "verifying":
        return {"status": "verifying sha256 digest"}
    digest = {} if step.digest is None else {"digest": f"sha256:{step.digest}"}
    status = f"pulling {(step.digest or step.name)[:12]}"
    return {"status": status, **digest, "total": step.total, "completed": step.done}


def _model(model: ServedModel, info: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of a list. digest: distinguishes models; a checksum would require reading the whole file."""
    name = model.name if ":" in model.name else f"{model.name}:latest"
    differs = [model.name, *(info.get(key) for key in ("architecture", "n_params", "size_bytes"))]
    digest, size = hashlib.sha256(encode(differs)).hexdigest(), info.get("size_bytes", 0)
    arch = info.get("architecture", "")
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": arch,
        "families": [arch],
        "parameter_size": parameter_size(info.get("n_params", 0)),
        "quantization_level": (info.get("file_type") or "unknown").partition(" ")[0],
        "context_length": info.get("n_ctx_train", 0),
        "embedding_length": info.get("n_embd", 0),
    }
    return {"name": name, "model": name, "size": size, "digest": digest, "details": details}
