"""The application: state, layers, routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server.api import ROUTERS
from server.api.common.generation_fields import error_responses
from server.config.settings import Settings
from server.dependencies import Engine, State
from server.errors import on_http_error, on_unavailable, on_validation_error
from server.http.middleware.access_log import AccessLog
from server.http.middleware.auth import Auth
from server.http.middleware.limits import BodyLimits, HeadLimits
from server.metrics.prometheus import Metrics
from server.worker.errors import EngineUnavailable

log = logging.getLogger("ggserve")


def create_app(settings: Settings, engines: Mapping[str, Engine]) -> FastAPI:
    """The ASGI application that serves `engines`, which it starts and stops.

    It answers from the first moment: /health tells the progress of loading.
    """
    metrics = Metrics(engines)
    # Texts are tokenised and templates rendered here: few at a time, for the engines need the processor, too.
    threads = ThreadPoolExecutor(2, "ggserve-text")
    settings.check_slot_folder()
    state = State(settings, engines, metrics, threads, time.time(), settings.chat_template_text())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None, None]:
        starting = asyncio.create_task(_start(engines))
        try:
            yield
        finally:
            state.stopping = True
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            # Streams were drained by the HTTP server before this: what still runs had its time.
            await asyncio.gather(*(engine.stop(0.0) for engine in engines.values()), return_exceptions=True)
            for checker in state.checkers.values():
                checker.close()
            threads.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="ggserve",
        description="Completions from GGUF models, by the OpenAI wire format and a few fields more.",
        lifespan=lifespan,
        redirect_slashes=False,
        responses=error_responses(400, 401, 404, 413, 415, 429, 500, 503),
    )
    app.state.ggserve = state
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(EngineUnavailable, on_unavailable)
    # The last one added is the outermost. A body is read only of those who may send one.
    app.add_middleware(BodyLimits, settings=settings)
    app.add_middleware(Auth, keys=settings.api_keys())
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "x-api-key",
                "x-request-id",
                "anthropic-version",
                "anthropic-beta",
                "anthropic-dangerous-direct-browser-access",
            ],
            expose_headers=["x-request-id", "request-id", "retry-after", "x-should-retry"],
            max_age=600,
        )
    app.add_middleware(HeadLimits, settings=settings)
    app.add_middleware(AccessLog, metrics=metrics)
    for router in ROUTERS:
        app.include_router(router)
    return app


async def _start(engines: Mapping[str, Engine]) -> None:
    """One after the other: what memory is free for the second is known when the first has its own."""
    for engine in engines.values():
        try:
            await engine.start()
        except Exception as error:
            log.error("model '%s' cannot be loaded: %s", engine.name, error)
