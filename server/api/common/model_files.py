"""Pulls and deletes models on this machine on behalf of an API, if --allow-pull permits it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from server.errors import NEVER, ApiError, UnknownModel
from server.generation.request_context import RequestContext
from server.models import catalog
from server.models.errors import DownloadError, ModelNotFound, NotRemovable
from server.models.progress import Progress, Report, in_background
from server.models.resolver import Pulling

_PULL = "pull"  # among the jobs, of which there is one at a time


def _check_permitted(context: RequestContext) -> None:
    if not context.state.settings.allow_pull:
        raise _forbidden("pulling and deleting models over HTTP requires the server's option --allow-pull")


async def pull(name: str, context: RequestContext) -> AsyncGenerator[Progress, None]:
    """Download a model. Closing the generator ends the download. Raises ApiError, at once if it is not
    permitted.
    """
    _check_permitted(context)
    jobs = context.state.jobs
    if _PULL in jobs:
        raise ApiError(429, f"{jobs[_PULL]} is being pulled; try again later", code="busy", retry_after=60)
    jobs[_PULL] = name

    def work(report: Report) -> None:
        catalog.pull(name, Pulling(report=report))

    try:
        with _worded():
            async with aclosing(in_background(work)) as steps:
                async for step in steps:
                    yield step
    finally:
        del jobs[_PULL]


async def delete(name: str, context: RequestContext) -> None:
    """Delete a model that is not being served. Raises ApiError, at once if it is not permitted."""
    _check_permitted(context)
    with _worded():
        model = await asyncio.to_thread(catalog.find, name)
        if model is None:
            raise UnknownModel(f"there is no model '{name[:200]}' on this machine", name)
        _check_idle(await asyncio.to_thread(catalog.files, model), context)
        await asyncio.to_thread(catalog.delete, name)


def _check_idle(files: Iterable[Path], context: RequestContext) -> None:
    """Refuse to delete what an engine uses, or would load again after a crash."""
    engines = [*context.state.registry.all_engines()]
    if any(engine.state == "loading" for engine in engines):
        raise ApiError(503, "a model is loading; try again later", code="model_loading", retry_after=2)
    paths = [str(engine.info["path"]) for engine in engines if engine.info and "path" in engine.info]
    # Those that are not loaded may be, at the next request.
    paths += [str(model.path) for model in context.state.registry.models.values() if model.engine is None]
    if not set(map(os.path.realpath, files)).isdisjoint(map(os.path.realpath, paths)):
        raise ApiError(409, "model: is served; stop the server first", param="model", code="model_in_use")


def _forbidden(message: str, param: str | None = None) -> ApiError:
    return ApiError(403, message, param=param, code="not_permitted", retry_after=NEVER)


@contextmanager
def _worded() -> Iterator[None]:
    """Turn errors of `server.models` into errors with a status, without this machine's paths."""
    try:
        yield
    except ModelNotFound as error:
        raise ApiError(404, _without_paths(error), param="model", code="model_not_found") from None
    except NotRemovable as error:
        raise _forbidden(str(error), param="model") from None
    except DownloadError as error:
        raise ApiError(500, _without_paths(error), code="pull_failed") from None
    except ValueError as error:
        raise ApiError(400, f"model: {error}", param="model", code="invalid_value") from None


def _without_paths(error: Exception) -> str:
    return re.sub(r"(?<!\S)(/|[A-Z]:\\)[^\s;,]+", "the cache", str(error))
