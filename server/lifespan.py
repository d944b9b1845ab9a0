"""Starting and stopping the application: its engines, threads and child processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from server.http.route import Route
from server.registry.registry import ModelRegistry
from server.state import State
from server.worker.engine import Engine

log = logging.getLogger("ggserve")


def lifespan_of(
    state: State, threads: ThreadPoolExecutor
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of the application with this state. Its text processing runs in `threads`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        if state.settings.spec_type == "ngram-simple":
            state.registry.on_loaded(_warn_without_drafts)
        starting = asyncio.create_task(state.registry.start())
        watching = asyncio.create_task(state.keys.watch())
        preparing = asyncio.create_task(_prepare_routes(app, state.registry))
        try:
            yield
        finally:
            state.stopping = True
            # The results of state.background no client can fetch any more.
            ending = [starting, watching, preparing, *state.background]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            # The HTTP server drained streams before this: what still runs has had its time.
            await state.registry.stop()
            state.close()
            if state.traces is not None:
                await asyncio.to_thread(state.traces.close)
            threads.shutdown(wait=False, cancel_futures=True)

    return lifespan


async def _prepare_routes(app: FastAPI, registry: ModelRegistry) -> None:
    """Prepare routes after the models are loaded; an earlier request prepares its own route, in a few
    milliseconds.
    """
    await registry.wait_started()

    def prepare() -> None:
        for route in app.routes:
            if isinstance(route, Route):
                route.prepare()

    await asyncio.to_thread(prepare)


def _warn_without_drafts(engine: Engine) -> None:
    """Warn if the options ask for speculative decoding that the model cannot do."""
    info = engine.info or {}
    if info.get("generates") and not info.get("drafts", True):
        log.warning(
            "model '%s' cannot use speculative decoding: its recurrent states cannot be rolled back",
            engine.name,
        )
