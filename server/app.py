"""The application: state, middleware, routes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from server.api import APIS
from server.api.common.replies.errors import ERRORS
from server.api.common.replies.schema import error_responses
from server.config.settings import Settings
from server.errors import on_http_error, on_unavailable, on_validation_error
from server.http.middleware.access_log import AccessLog
from server.http.middleware.auth import Auth
from server.http.middleware.drain import Drain
from server.http.middleware.limits import BodyLimits, HeadLimits
from server.http.middleware.rate_limits import HEADERS as LIMIT_HEADERS
from server.http.middleware.rate_limits import ClientLimits
from server.http.route import Route
from server.keys.key_ring import KeyRing
from server.lifespan import lifespan_of
from server.metrics.prometheus import Metrics
from server.metrics.traces import Traces
from server.registry.registry import ModelRegistry
from server.state import State
from server.worker.errors import EngineUnavailable

# In one list, and not as routers that FastAPI includes: it would prepare each route twice. All applications
# of a process share them, since nearly every test makes an application.
ROUTES = [route for api in APIS for router in api.routers for route in router.routes]
for _route in ROUTES:
    if isinstance(_route, Route):
        _route.replies = error_responses(400, 401, 404, 413, 415, 429, 500, 503) | _route.replies


def create_app(settings: Settings, registry: ModelRegistry, keys: KeyRing | None = None) -> FastAPI:
    """The ASGI application that serves the models of `registry`, which it starts and stops.

    It answers from the start: /health shows the progress of loading. keys: None: those of the settings.
    """
    keys = keys or KeyRing(settings.api_key, settings.api_key_file)
    metrics = Metrics(registry.engines)
    # For tokenizing and rendering templates: few threads, since the engines need the processor as well.
    threads = ThreadPoolExecutor(2, "ggserve-text")
    settings.check_slot_folder()
    state = State(settings, registry, metrics, threads, time.time(), settings.chat_template_text(), keys)
    if settings.otlp_traces_endpoint is not None:
        state.traces = Traces(settings.otlp_traces_endpoint)
    registry.on_removed(state.forget)

    app = FastAPI(
        title="ggserve",
        description="Completions from GGUF models, by the OpenAI wire format and a few fields more.",
        lifespan=lifespan_of(state, threads),
        openapi_url=None,  # served by server/api/ggserve/page.py, without blocking the event loop
        redirect_slashes=False,
        routes=ROUTES,
    )
    app.state.ggserve = state
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(EngineUnavailable, on_unavailable)
    # The last one added is the outermost. A body is read only of those who may send one.
    app.add_middleware(BodyLimits, settings=lambda: state.settings)
    app.add_middleware(ClientLimits)
    app.add_middleware(Auth, keys=keys)
    app.add_middleware(Drain, stopping=lambda: state.stopping)
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
            expose_headers=["x-request-id", "request-id", "retry-after", "x-should-retry", *LIMIT_HEADERS],
            max_age=600,
        )
    app.add_middleware(HeadLimits, settings=lambda: state.settings)
    app.add_middleware(AccessLog, metrics=metrics, traces=state.traces)
    formats = [*(api.errors for api in APIS if api.errors is not None), ERRORS]
    app.state.error_formats = sorted(formats, key=lambda format: -len(format.prefix))
    return app
