"""`ggserve serve`: HTTP in this process, one engine process per model."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from engine.errors import ConfigError
from server import logs
from server.cli.command import Parser
from server.config import sources
from server.worker.client import EngineClient

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

log = logging.getLogger("ggserve")

EXAMPLES = """\
  ggserve serve                                        the bundled model on http://127.0.0.1:8080
  ggserve serve -m model.gguf --parallel 16            yours, for sixteen at a time
  ggserve serve -m small=a.gguf -m large=b.gguf        two models, by name
  ggserve serve --host 0.0.0.0 --api-key-file keys     for others on the network
  ggserve serve --config ggserve.yml                   options from a file (see ggserve config)

Ctrl-C or SIGTERM lets running streams finish; a second one does not."""


def run(arguments: list[str]) -> int:
    # Until the event loop takes the signals over, there is nothing to drain.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return serve(arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def serve(arguments: list[str]) -> int:
    """Check everything that can be checked, then load and serve; the exit status."""
    began = time.monotonic()
    parser = Parser("ggserve serve", "Serve models over HTTP with the OpenAI API and a few more.", EXAMPLES)
    sources.add_options(parser, serve=True)
    args = parser.parse_args(arguments)
    settings = sources.load(sources.from_arguments(args), args.config)
    logs.configure(settings.log_level, settings.log_format)
    for advice in sources.unknown_environment():
        log.warning("%s", advice)
    settings.api_keys()  # an unreadable file is a mistake to report before anything starts
    engines = {name: EngineClient(name, path, settings) for name, path in settings.models().items()}
    sockets = listen(settings.host, settings.port)
    allow_files(settings.max_connections)
    if not settings.listens_locally and not settings.api_keys():
        log.warning("anyone who reaches %s may use this server; --api-key-file closes it", settings.host)
    try:
        # The engine loads while the rest of the server is imported. With several, each may need what
        # memory the one before has left: they are started by the application.
        if len(engines) == 1:
            next(iter(engines.values())).spawn()
        from server.http.server import HttpServer

        return HttpServer(settings, engines, sockets, began).run_to_end(loop_factory())
    finally:
        for sock in sockets:
            sock.close()


def listen(hosts: str, port: int) -> list[socket.socket]:
    """Sockets for every address of the hosts. Done before loading: a port in use is told at once."""
    sockets: list[socket.socket] = []
    try:
        for host in hosts.split(","):
            port = _listen(host.strip(), port, sockets)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(host: str, port: int, sockets: list[socket.socket]) -> int:
    """Adds those of one host; returns their port."""
    found = len(sockets)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(addresses):
            if port == 0 and len(sockets) > found:
                break  # one free port, not one per address
            sockets.append(socket.create_server(address[:2], family=family, backlog=2048))
    except OSError as error:
        hint = "; choose another with --port" if "in use" in str(error) else ""
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from error
    bound: int = sockets[-1].getsockname()[1]
    return bound


def allow_files(connections: int) -> None:
    """Raise our own limit on open files to what that many connections need; the usual 1024 is too few."""
    if sys.platform == "win32":  # has no such limit
        return
    import resource

    needed = connections + 128
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < needed:
            log.warning(
                "only %d files may be open (ulimit -n), %d are needed for --max-connections", most, needed
            )


def loop_factory() -> Callable[[], AbstractEventLoop]:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # not on Windows
        return asyncio.new_event_loop
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory
