"""The uvicorn server: announces its URL, drains running requests at the end, returns an exit status.

It overrides undocumented methods of uvicorn: see tests/server/http/test_uvicorn_overrides.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI

from server.config.settings import Settings
from server.http.certificate import Certificate
from server.http.hangup import SIGNALS, Terminal
from server.http.protocol import LimitedProtocol, limited_protocol
from server.http.tls import tls_protocol
from server.registry.registry import ModelRegistry
from server.registry.served_model import ModelState
from server.worker.model_use import ModelUse, model_use

log = logging.getLogger("ggserve")

PROGRESS_EVERY_S = 0.1
# Of what a model is for: path and fields of a request to try.
EXAMPLES: dict[ModelUse, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True},
    ),
    "text": ("/v1/completions", {"prompt": "Once upon a time", "stream": True}),
    "embeddings": ("/v1/embeddings", {"input": ["Once upon a time", "A long time ago"]}),
    "ranking": ("/v1/rerank", {"query": "What is a panda?", "documents": ["hi", "it is a bear"]}),
}
ENDING_S = 2.0  # for requests to answer that they were ended, and for clients to read that
EXIT_NOW_S = 0.3  # the same after a second signal


def _url(sock: socket.socket, scheme: str) -> str:
    """The URL of `sock` for a client on this machine."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class ProgressDisplay(Protocol):
    """Shows the progress of loading a model (`server.cli.console.LoadProgress`)."""

    def __call__(self, model: str, fraction: float, text: str) -> None: ...
    def close(self) -> None: ...


class HttpServer(uvicorn.Server):
    """Serves until a signal arrives or no model can be loaded. First signal: drain; second: exit at once.
    SIGHUP: `reload`, or drain if the terminal has hung up.

    While draining it keeps listening: new requests get 503 with Retry-After (`middleware.drain`). The exit
    status is 0 after the drain, even if requests had to be ended; 128 plus the signal's number after a second
    signal. began: time.monotonic() at the start of the command, for the log line that says how long starting
    took. certificate: for TLS.
    """

    def __init__(
        self,
        app: FastAPI,
        sockets: list[socket.socket],
        progress: ProgressDisplay,
        began: float,
        reload: Callable[[], None] = lambda: None,
        certificate: Certificate | None = None,
    ) -> None:
        self._app = app
        self.registry: ModelRegistry = app.state.ggserve.registry
        self.sockets = sockets
        self.url = _url(sockets[0], "http" if certificate is None else "https")
        self.status = 0
        self._certificate = certificate
        self._protocol: type[LimitedProtocol]
        if certificate is None:
            self._protocol = limited_protocol(self.settings, LimitedProtocol)
        else:
            self._protocol = tls_protocol(self.settings, certificate)
        self._exit_now = asyncio.Event()  # a second signal
        self._began = began
        self._reload, self._terminal = reload, Terminal()
        self._progress = progress
        self._announcer: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                app,
                http=self._protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
            )
        )

    @property
    def settings(self) -> Settings:
        """The settings in effect."""
        settings: Settings = self._app.state.ggserve.settings
        return settings

    def run_to_end(self, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
        """Serve until the end. Returns the exit status."""
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(self.serve(sockets=self.sockets))
        return self.status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announcer = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        """Show the progress of loading, then how to reach the server. Exit if no model can be loaded."""
        showing = asyncio.create_task(self._show_progress())
        try:
            failures = await self.registry.wait_started()
        finally:
            showing.cancel()
            self._progress.close()
        models = self.registry.models.values()
        if failures and all(model.failure is not None for model in models):
            if not self.should_exit:
                self.status = 2 if failures[0].kind == "ConfigError" else 1
                self.should_exit = True
            return
        names = [model.name for model in models if not model.in_folder and model.state != ModelState.FAILED]
        if (folder := self.registry.policy.folder) is not None:
            names.append(f"{sum(model.in_folder for model in models)} models of {folder}")
        text = ", ".join(names)
        log.info("serving %s on %s, ready in %.1f s", text, self.url, time.monotonic() - self._began)
        if self.settings.log_format == "text" and self.registry.models:
            with contextlib.suppress(OSError):  # a full disk; of log lines the logging module takes care
                sys.stderr.write(self.example())
                sys.stderr.flush()

    async def _show_progress(self) -> None:
        while True:
            for name, engine in self.registry.engines.items():
                if engine.progress > 0 and engine.state == "loading":
                    self._progress(name, engine.progress, engine.detail)
            await asyncio.sleep(PROGRESS_EVERY_S)

    def example(self) -> str:
        """A request to try with the first model, as a shell command."""
        model = next(iter(self.registry.models.values()))
        use = "chat" if model.engine is None else model_use(model.engine, self.settings.chat_template)
        path, fields = EXAMPLES[use]
        body = {"model": model.name, **fields}
        key = "    -H 'authorization: Bearer YOUR-KEY' \\\n" if self._app.state.ggserve.keys.required else ""
        return (
            f"\n  curl -N {self.url}{path} \\\n{key}"
            f"    -H 'content-type: application/json' -d '{json.dumps(body)}'\n\n"
        )

    # --- the end

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn raises the signal again at the end; here the process exits with a status instead."""
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)

        # Not the loop's own handlers, which event loops of Windows do not have.
        numbers = (signal.SIGINT, signal.SIGTERM, *SIGNALS)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int) -> None:
        if number in SIGNALS:
            if not self._terminal.has_hung_up:
                if self._certificate is not None:
                    self._certificate.reload_or_log()
                self._reload()
                self._protocol.reload(self.settings)
                return
            if self.should_exit:  # the system and the shell both tell
                return
        running = sum(len([*engine.requests()]) for engine in self.registry.all_engines())
        if self.force_exit:  # the third: something does not end
            os._exit(128 + number)
        elif self.should_exit:
            log.warning("exiting at once")
            self.status = 128 + number
            self.force_exit = True
            self._exit_now.set()
        elif running:
            seconds = self.settings.drain_s
            log.info("stopping: %d requests have %g s to finish (repeat to exit at once)", running, seconds)
        else:
            log.info("stopping")
        self.should_exit = True
        self._refuse_requests()

    def _refuse_requests(self) -> None:
        self._app.state.ggserve.stopping = True
        self._protocol.draining = True
        for connection in self._connections():
            connection.drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain. Unlike uvicorn's method, it keeps listening until the last running request has ended."""
        if self._announcer is not None:
            self._announcer.cancel()
        self._refuse_requests()
        tasks = set(self.server_state.tasks)
        await self._wait_for(tasks, self.settings.drain_s)
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        await self._end(tasks)
        await self._close_connections()
        await self.lifespan.shutdown()

    async def _wait_for(self, tasks: set[asyncio.Task[None]], seconds: float) -> None:
        """Wait until all tasks are done, the time is up or a second signal arrives."""
        if not tasks:
            return
        ends = (asyncio.create_task(asyncio.wait(tasks)), asyncio.create_task(self._exit_now.wait()))
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def _end(self, tasks: set[asyncio.Task[None]]) -> None:
        """End the requests that are still running: streams get an error event, other clients a 503."""
        unfinished = sum(not task.done() for task in tasks)
        if unfinished:
            log.warning("%d requests did not finish in time and were ended", unfinished)
        if self.force_exit:
            self.registry.kill()
        await self.registry.stop()
        tasks = self.server_state.tasks | tasks
        if tasks:
            await asyncio.wait(tasks, timeout=self._ending_s)

    async def _close_connections(self) -> None:
        """Let clients read what was written; disconnect those that do not read or are still sending a
        request.
        """
        for connection in self._connections():
            connection.shutdown()
        end = time.monotonic() + self._ending_s
        while self.server_state.connections and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for connection in self._connections():
            connection.transport.abort()
        tasks = set(self.server_state.tasks)  # which see that their client has gone
        if tasks:
            await asyncio.wait(tasks, timeout=self._ending_s)

    @property
    def _ending_s(self) -> float:
        return EXIT_NOW_S if self.force_exit else ENDING_S

    def _connections(self) -> list[LimitedProtocol]:
        return list(self.server_state.connections)  # type: ignore[arg-type]
