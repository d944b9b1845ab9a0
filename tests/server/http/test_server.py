"""The server around the engines: announces itself, ends with the right status. In this process."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import threading
import time

import pytest
import uvloop

from server.app import create_app
from server.cli.console import LoadProgress
from server.cli.serving import allow_files, listen
from server.config.settings import Settings
from server.http.server import HttpServer
from server.registry.registry import ModelRegistry
from server.worker.errors import LoadFailed
from support.fakes.engine_client import alive, make_client
from support.quick import every


def make_server(settings: Settings, engines, sockets, reload=lambda: None) -> HttpServer:
    app = create_app(settings, ModelRegistry.of(engines))
    return HttpServer(app, sockets, LoadProgress(bar=False), time.monotonic(), reload)


def serve(
    *arguments: str, loop=asyncio.new_event_loop, during=None, reload=lambda: None, **options
) -> tuple[int, HttpServer]:
    """Run a server on the fake engine; `during(server)` runs in a thread beside it."""
    settings = Settings(model=["fake=fake.gguf"], **options)
    server = make_server(settings, {"fake": make_client(*arguments)}, listen("127.0.0.1", 0), reload)
    thread = threading.Thread(target=during or (lambda server: None), args=(server,))
    thread.start()
    try:
        return server.run_to_end(loop), server
    finally:
        thread.join()


def stop_when(ready, number: int = signal.SIGTERM):
    """A `during` that sends us a signal once `ready(engine)`."""

    def during(server: HttpServer) -> None:
        engine = server.registry.engines["fake"]
        end = time.monotonic() + 30
        while not (server.started and ready(engine)) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    return during


class WithoutSignals(asyncio.SelectorEventLoop):
    """As loops are on Windows: they have no signal handlers of their own."""

    add_signal_handler = asyncio.AbstractEventLoop.add_signal_handler
    remove_signal_handler = asyncio.AbstractEventLoop.remove_signal_handler


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop, WithoutSignals]


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop", "Windows"])
@pytest.mark.parametrize("number", every(2, [signal.SIGTERM, signal.SIGINT]))
def test_server_announces_its_address_and_exits_with_0(number, loop, caplog, capsys):
    caplog.set_level(logging.INFO, "ggserve")
    status, server = serve(loop=loop, during=stop_when(lambda e: e.state == "ready", number))
    assert status == 0
    assert f"serving fake on {server.url}, ready in " in caplog.text
    assert "stopping" in caplog.text
    error = capsys.readouterr().err
    assert f"curl -N {server.url}/v1/completions" in error
    assert '"model": "fake"' in error
    assert server.registry.engines["fake"].pid is None


def test_sighup_reloads_without_stopping_the_server():
    reloads = threading.Semaphore(0)

    def during(server: HttpServer) -> None:
        for _ in range(2):
            server._app.state.ggserve.reload({"header_timeout_s": 3.0})
            stop_when(lambda engine: engine.state == "ready", signal.SIGHUP)(server)
            assert reloads.acquire(timeout=30)
        assert not server.should_exit
        assert server._protocol.header_timeout_s == 3
        os.kill(os.getpid(), signal.SIGTERM)

    assert serve(during=during, reload=reloads.release)[0] == 0


def test_terminal_hangup_drains_however_often_it_is_sent(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ggserve")
    monkeypatch.setattr("server.http.hangup.has_terminal", lambda: True)
    monkeypatch.setattr("signal.getsignal", lambda _: signal.SIG_DFL)  # also under nohup

    def during(server: HttpServer) -> None:
        monkeypatch.setattr("server.http.hangup.has_terminal", lambda: False)
        for _ in range(3):
            stop_when(lambda engine: engine.state in ("ready", "stopped"), signal.SIGHUP)(server)

    status, server = serve(during=during)
    assert status == 0
    assert not server.force_exit
    assert "stopping" in caplog.text


def test_signal_while_loading_exits_with_0(caplog):
    pids = []

    def loading(engine) -> bool:
        pids.append(engine.pid)
        return engine.pid is not None

    status, _ = serve("--load-ms", "60000", during=stop_when(loading))
    assert status == 0
    assert not alive(pids[-1])
    assert "Traceback" not in caplog.text


def test_model_that_cannot_load_exits_with_1(caplog):
    status, server = serve("--fail-from", "0")
    assert status == 1
    assert caplog.text.count("the file ends inside tensor 'x'") == 1
    assert server.registry.engines["fake"].restarts == 0


def test_options_the_engine_refuses_exit_with_2(monkeypatch, caplog):
    async def refuse(self, progress=None):
        self._failure = LoadFailed("ConfigError", "kv_cells must hold one session")
        self._started.set()
        await self.wait_loaded()

    monkeypatch.setattr("server.worker.client.EngineClient.start", refuse)
    assert serve()[0] == 2
    assert "kv_cells must hold one session" in caplog.text


def test_json_log_has_no_example_command(capsys):
    status, _ = serve(during=stop_when(lambda e: e.state == "ready"), log_format="json")
    assert status == 0
    assert "curl" not in capsys.readouterr().err


def test_example_command_mentions_keys():
    settings = Settings(model=["x.gguf"], api_key=["hidden"])
    server = make_server(settings, {"x": make_client()}, listen("127.0.0.1", 0))
    assert "\n    -H 'authorization: Bearer YOUR-KEY' \\\n    -H" in server.example()
    assert "hidden" not in server.example()
    for sock in server.sockets:
        sock.close()


def test_server_listens_on_every_address_of_a_name():
    sockets = listen("127.0.0.1", 0)
    assert sockets[0].getsockname()[1] > 0
    for sock in sockets:
        sock.close()
    everywhere = listen("0.0.0.0", 0)
    server = make_server(Settings(model=["x.gguf"]), {"x": make_client()}, everywhere)
    assert server.url.startswith("http://127.0.0.1:")
    everywhere[0].close()


def test_the_limit_on_open_files_is_raised_as_far_as_it_may_be(monkeypatch, caplog):
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: limits.update(now=pair))
    assert allow_files(500) == 500
    assert limits["now"] == (1024, 4096)
    assert allow_files(2000) == 2000
    assert limits["now"] == (2128, 4096)
    assert not caplog.records
    assert allow_files(None) == 4096 - 128
    assert limits["now"] == (4096, 4096)
    assert not caplog.records
    assert allow_files(10_000) == 10_000
    assert "the limit on open files is 4096" in caplog.text
    limits["now"] = (1024, resource.RLIM_INFINITY)
    assert allow_files(None) == 16384
    assert limits["now"] == (16384 + 128, resource.RLIM_INFINITY)
