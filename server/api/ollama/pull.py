"""POST /api/pull and DELETE /api/delete, where --allow-pull permits them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from server.api.common.requests.generation_options import check_fields
from server.api.common.requests.json_reader import missing
from server.api.ollama.errors import error_body
from server.api.ollama.schema import OllamaNameRequest, OllamaPullRequest
from server.dependencies import ContextDep
from server.errors import NEVER, ApiError, UnknownModel
from server.generation.request_context import RequestContext
from server.http import ndjson
from server.http.json_route import AnyTypeRoute, json_reply, json_router
from server.http.sse import while_connected
from server.models import catalog
from server.models.errors import DownloadError, ModelNotFound
from server.models.progress import Progress

router = json_router(AnyTypeRoute)
_PULL = "pull"  # among the jobs, of which there is one at a time


@router.post("/api/pull", response_model=None)
async def pull_model(body: OllamaPullRequest, request: Request, context: ContextDep) -> Response:
    """Download a model from the Hub; by default with a stream of JSON lines. It is not served by that."""
    name = _permitted(body, context)
    context.warn(f"'{name}' is served once the server is started with --model {name}")
    progress = _pull(name, context)
    end = context.with_warnings({"status": "success"})
    if body.stream is False:
        await while_connected(request.receive, _to_the_end(progress))
        return json_reply(end, context)
    first = await while_connected(request.receive, anext(progress))
    return StreamingResponse(_lines(first, progress, end), media_type=ndjson.MEDIA_TYPE.decode())


@router.delete("/api/delete", response_model=None)
async def delete_model(body: OllamaNameRequest, context: ContextDep) -> Response:
    """Remove a downloaded model that is not served."""
    name = _permitted(body, context)
    with _worded():
        model = await asyncio.to_thread(catalog.find, name)
        if model is None:
            raise UnknownModel(f"there is no model '{name[:200]}' on this machine", name)
        _check_idle(model.path, context)
        await asyncio.to_thread(catalog.delete, name)
    return json_reply({"status": "success"}, context)


def _check_idle(path: Path, context: RequestContext) -> None:
    """Refuse to remove what an engine uses, also to load it again after a crash."""
    engines = context.state.engines.values()
    if any(engine.state == "loading" for engine in engines):
        raise ApiError(503, "a model is loading; try again later", code="model_loading", retry_after=2)
    paths = [str(engine.info["path"]) for engine in engines if engine.info and "path" in engine.info]
    if os.path.realpath(path) in map(os.path.realpath, paths):
        raise ApiError(409, "model: is served; stop the server first", param="model", code="model_in_use")


def _permitted(body: OllamaNameRequest, context: RequestContext) -> str:
    """The name of the request. hf.co/ before it is Ollama's way to name the Hub."""
    if not context.state.settings.allow_pull:
        message = "models are not pulled or deleted over HTTP; the server's --allow-pull permits it"
        raise ApiError(403, message, code="not_permitted", retry_after=NEVER)
    check_fields(body, context)
    name = body.model or body.name
    if name is None:
        raise missing("model")
    if body.model and body.name:
        context.warn("name has no effect: model is set")
    return re.sub(r"^(https://)?(hf\.co|huggingface\.co)/", "hf:", name).removesuffix(":latest")


@contextlib.contextmanager
def _worded() -> Iterator[None]:
    """Failures of `server.models` with a status. Paths of this machine are left out."""
    try:
        yield
    except ModelNotFound as error:
        raise ApiError(404, _without_paths(error), param="model", code="model_not_found") from None
    except DownloadError as error:
        raise ApiError(500, _without_paths(error), code="pull_failed") from None
    except ValueError as error:
        raise ApiError(400, f"model: {error}", param="model", code="invalid_value") from None


def _without_paths(error: Exception) -> str:
    return re.sub(r"(?<!\S)(/|[A-Z]:\\)[^\s;,]+", "the cache", str(error))


async def _pull(name: str, context: RequestContext) -> AsyncGenerator[Progress, None]:
    """In a thread of its own, which ends soon after this is closed."""
    jobs, loop = context.state.jobs, asyncio.get_running_loop()
    if _PULL in jobs:
        raise ApiError(429, f"{jobs[_PULL]} is being pulled; try again later", code="busy", retry_after=60)
    reports: asyncio.Queue[Progress | Exception | None] = asyncio.Queue()
    ended = threading.Event()

    def report(item: Progress | Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(reports.put_nowait, item)

    def work() -> None:
        try:
            for step in catalog.pull(name):
                if ended.is_set():
                    return  # collects the iterator, which ends the download
                report(step)
            report(None)
        except Exception as error:
            report(error)

    jobs[_PULL] = name
    threading.Thread(target=work, name="pull", daemon=True).start()
    try:
        with _worded():
            while (item := await reports.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
    finally:
        ended.set()
        del jobs[_PULL]


async def _to_the_end(progress: AsyncGenerator[Progress, None]) -> None:
    async with contextlib.aclosing(progress):
        async for _ in progress:
            pass


async def _lines(
    first: Progress, progress: AsyncGenerator[Progress, None], end: dict[str, Any]
) -> AsyncIterator[bytes]:
    yield ndjson.json_line({"status": "pulling manifest"})
    yield ndjson.json_line(_line(first))
    try:
        async with contextlib.aclosing(progress):
            async for step in progress:
                yield ndjson.json_line(_line(step))
        yield ndjson.json_line(end)
    except ApiError as error:
        yield ndjson.json_line(error_body(error))


def _line(step: Progress) -> dict[str, Any]:
    if step.status == "verifying":
        return {"status": "verifying sha256 digest"}
    digest = {} if step.digest is None else {"digest": f"sha256:{step.digest}"}
    return {
        "status": f"pulling {(step.digest or step.name)[:12]}",
        **digest,
        "total": step.total,
        "completed": step.done,
    }
