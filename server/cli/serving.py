"""The server of `ggserve serve`: HTTP in this process, one engine process per model."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from engine.errors import ConfigError
from server import logs
from server.cli import BEGAN
from server.cli.command import Parser, add_model_argument, requested_options, warn_if_public, with_files
from server.cli.console import LoadProgress
from server.cli.reloading import Engines, Reloading, apply_options, policy_of
from server.config import sources
from server.config.settings import MOST_CONNECTIONS, Settings
from server.http.hangup import SIGNALS, Terminal
from server.keys.key_ring import KeyRing
from server.registry.loader import Capacity
from server.registry.registry import ModelRegistry
from server.worker.supervision.process import StartedProcess

if TYPE_CHECKING:
    from server.http.certificate import Certificate

log = logging.getLogger("ggserve")

MAX_MODELS = 4  # loaded at the same time, of --models-dir
OTHER_FILES = 128  # that the server has open besides connections
EXAMPLES = """\
  ggserve serve                                        SmolLM2-135M-Instruct on http://127.0.0.1:8080
  ggserve serve model.gguf --parallel 16               your own model, 16 requests at a time
  ggserve serve -m small=a.gguf -m large=b.gguf        two models with names
  ggserve serve --models-dir models                    every model there, loaded when a request names it
  ggserve serve --host 0.0.0.0 --api-key-file keys     reachable from the network, with API keys
  ggserve serve --config ggserve.yml                   options from a file (see `ggserve config`)

Ctrl-C or SIGTERM lets running requests finish (see --drain-s); a second one exits at once
(status 130 or 143). SIGHUP reads API keys, the certificate and the options again, and logs which options
need a restart."""


def run(arguments: list[str], process: StartedProcess | None) -> int:
    """process: an engine process that was already started for a model."""
    # Until the event loop handles the signals there are no requests to drain.
    terminal = Terminal()

    def hangup(number: int, frame: FrameType | None) -> None:
        if terminal.has_hung_up:
            raise SystemExit(0)

    before = {number: signal.signal(number, _exit) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # of nohup, which the server looks for as well
            before[number] = signal.signal(number, hangup)
    try:
        return serve(arguments, process)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def serve(arguments: list[str], process: StartedProcess | None) -> int:
    """Check the configuration, then load and serve. Returns the exit status."""
    parser = Parser(
        "ggserve serve", "Serve models over HTTP: OpenAI, Anthropic, Ollama and llama-server APIs.", EXAMPLES
    )
    add_model_argument(parser)
    sources.add_options(parser, serve=True)
    args = parser.parse_args(arguments)
    settings = options = sources.load(requested_options(args), args.config)
    logs.configure(settings.log_level, settings.log_format)
    for advice in sources.unknown_environment():
        log.warning("%s", advice)
    keys = KeyRing(settings.api_key, settings.api_key_file)  # reports a bad file before anything starts
    certificate = certificate_of(settings)
    sockets = listen(settings.host, settings.port)
    settings = settings.model_copy(update={"max_connections": allow_files(settings.max_connections)})
    if not keys.required:
        warn_if_public(settings)
    try:
        settings = with_files(settings)
        engines = Engines(settings)
        registry = registry_of(settings, engines)
        # The engine loads while the rest of the server is imported. Several are started one after the other
        # by the application, since each is placed in the memory that is left.
        if len(registry.engines) == 1:
            for engine in registry.engines.values():
                engine.spawn(process)
        elif process is not None:
            process.discard()
        from server.app import create_app
        from server.http.server import HttpServer

        app = create_app(settings, registry, keys)
        read = partial(sources.load, requested_options(args), args.config)
        apply = partial(apply_options, state=app.state.ggserve, engines=engines)
        reload = Reloading(keys, options, read, apply)
        gc.freeze()  # what was imported stays: no later search for garbage passes through it
        gc.enable()
        with LoadProgress(bar=settings.log_format == "text") as progress:
            return HttpServer(app, sockets, progress, BEGAN, reload, certificate).run_to_end(loop_factory())
    finally:
        for sock in sockets:
            sock.close()


def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate of --tls-cert. Raises ConfigError if it is unusable."""
    if settings.tls_cert is None:
        return None
    from server.http.certificate import Certificate

    return Certificate(settings.tls_cert, settings.tls_key)


def registry_of(settings: Settings, engines: Engines | None = None) -> ModelRegistry:
    """The models of the options; each has its own engine process while it is loaded."""
    folder = settings.models_dir and settings.models_dir.expanduser().absolute()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--models-dir {folder}: is not a directory")
    default_max = MAX_MODELS if folder is not None else 0
    return ModelRegistry(
        settings.models(),
        engines or Engines(settings),
        policy_of(settings, folder),
        Capacity(default_max if settings.models_max is None else settings.models_max, settings.models_memory),
    )


def listen(hosts: str, port: int) -> list[socket.socket]:
    """Sockets for all addresses of the hosts. Raises ConfigError if a port is in use, before anything is
    loaded.
    """
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
    """Append the sockets of one host and return their port."""
    n_before = len(sockets)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(addresses):
            if port == 0 and len(sockets) > n_before:
                break  # one free port, not one per address
            sockets.append(socket.create_server(address[:2], family=family, backlog=2048))
    except OSError as error:
        hint = "; choose another with --port" if "in use" in str(error) else ""
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from error
    bound: int = sockets[-1].getsockname()[1]
    return bound


def allow_files(connections: int | None) -> int:
    """Raise the limit on open files to what `connections` need, since the usual 1024 is too low.

    None: as many connections as the limit can be raised to, at most MOST_CONNECTIONS. Returns the number of
    connections allowed.
    """
    if sys.platform == "win32":  # has no limit
        return connections or MOST_CONNECTIONS
    import resource

    needed = (connections or MOST_CONNECTIONS) + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = soft
    if soft != resource.RLIM_INFINITY and soft < needed:
        files = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    if files == resource.RLIM_INFINITY or files >= needed:
        return connections or MOST_CONNECTIONS
    if connections is None:
        return max(files - OTHER_FILES, files // 2)
    log.warning("the limit on open files is %d (ulimit -n), but --max-connections needs %d", files, needed)
    return connections


def loop_factory() -> Callable[[], AbstractEventLoop]:
    """uvloop where it is available."""
    try:
        import uvloop
    except ImportError:  # not on Windows
        return asyncio.new_event_loop
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory
