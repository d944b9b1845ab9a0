"""POST /api/pull and DELETE /api/delete, where --allow-pull permits them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from server.api.common.model_files import check_permitted, delete, pull
from server.api.ollama.errors import error_body
from server.api.ollama.parser import model_name
from server.api.ollama.schema import OllamaNameRequest, OllamaPullRequest
from server.dependencies import ContextDep
from server.errors import ApiError
from server.generation.request_context import RequestContext
from server.http import ndjson
from server.http.json_route import AnyTypeRoute, json_reply, json_router
from server.http.sse import while_connected
from server.models.progress import Progress

router = json_router(AnyTypeRoute)


@router.post("/api/pull", response_model=None)
async def pull_model(body: OllamaPullRequest, request: Request, context: ContextDep) -> Response:
    """Download a model from the Hub; by default with a stream of JSON lines. It is not served by that."""
    name = _name(body, context)
    context.warn(f"'{name}' will be served after a restart with --model {name}")
    progress, end = pull(name, context), context.with_warnings({"status": "success"})
    if body.stream is False:
        await while_connected(request.receive, _to_the_end(progress))
        return json_reply(end, context)
    first = await while_connected(request.receive, anext(progress, None))
    return StreamingResponse(_lines(first, progress, end), media_type=ndjson.MEDIA_TYPE.decode())


@router.delete("/api/delete", response_model=None)
async def delete_model(body: OllamaNameRequest, context: ContextDep) -> Response:
    """Remove a downloaded model that is not served."""
    await delete(_name(body, context), context)
    return json_reply({"status": "success"}, context)


def _name(body: OllamaNameRequest, context: RequestContext) -> str:
    """hf.co/ before a name is Ollama's way to name the Hub."""
    check_permitted(context)
    name = model_name(body, context)
    return re.sub(r"^(https://)?(hf\.co|huggingface\.co)/", "hf:", name).removesuffix(":latest")


async def _to_the_end(progress: AsyncGenerator[Progress, None]) -> None:
    async with aclosing(progress):
        async for _ in progress:
            pass


async def _lines(
    first: Progress | None, progress: AsyncGenerator[Progress, None], end: dict[str, Any]
) -> AsyncIterator[bytes]:
    yield ndjson.json_line({"status": "pulling manifest"})
    try:
        if first is not None:  # else the model is here already
            yield ndjson.json_line(_line(first))
        async with aclosing(progress):
            async for step in progress:
                yield ndjson.json_line(_line(step))
        yield ndjson.json_line(end)
    except ApiError as error:
        yield ndjson.json_line(error_body(error))


def _line(step: Progress) -> dict[str, Any]:
    if step.status == "verifying":
        return {"status": "verifying sha256 digest"}
    digest = {} if step.digest is None else {"digest": f"sha256:{step.digest}"}
    status = f"pulling {(step.digest or step.name)[:12]}"
    return {"status": status, **digest, "total": step.total, "completed": step.done}
