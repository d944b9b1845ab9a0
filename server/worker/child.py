"""One engine process as its server holds it: spawned, connected, watched, buried."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from server import logs
from server.worker import messages as wire
from server.worker import transport

log = logging.getLogger("ggserve.engine")

# -P: a module lying in the working directory must not become part of the engine.
DEFAULT_ARGV = (sys.executable, "-P", "-m", "server.worker.process")
_ROOT = Path(__file__).resolve().parents[2]
_EXIT_S = 2.0  # that a process whose connection is gone gets to end by itself
_LOG_LINE = 4096  # bytes of a line that are kept
_DUMP = "Fatal Python error"  # begins what faulthandler prints, after the cause
_ALARMING = re.compile(r"GGML_ASSERT|abort|\berror\b|out of memory", re.IGNORECASE)


class EngineChild:
    """`spawn` is synchronous, so that loading can begin before the event loop; `attach` joins the two."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.name = name
        self._process = process
        self._socket: socket.socket | None = sock
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Event | None = None
        self._log = _LogReader(name)
        self._log_transport: asyncio.BaseTransport | None = None
        self._log_is_read = False

    @classmethod
    def spawn(cls, name: str, order: wire.Load, argv: Sequence[str], log_level: str) -> EngineChild:
        """Start a process and tell it what to load."""
        ours, theirs = transport.pair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [*argv, "--fd", str(theirs.fileno()), "--log-level", log_level],
                    stdin=subprocess.DEVNULL,
                    # Whatever a backend prints goes to the log: our own stdout belongs to the user.
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    **transport.handed_over(theirs),
                )
            ours.sendall(wire.encode(order))
        except ConnectionError:
            pass  # it is dead already: attaching will show
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(name, process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def attach(self, on_messages: Callable[[list[wire.ToServer]], None]) -> None:
        """Deliver what the process says, in the event loop, until it is gone."""
        assert self._socket is not None
        self._lost = asyncio.Event()
        connection = _Connection(on_messages, self._lost, self)
        sock, self._socket = self._socket, None
        self._transport = await transport.join(sock, connection)
        assert self._process.stdout is not None
        self._log_transport = await transport.read_pipe(self._process.stdout, self._log)
        self._log_is_read = True

    def send(self, message: wire.ToEngine) -> None:
        """Never blocks; to a process that is gone it does nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(message))

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def lost(self) -> None:
        """Wait until its end of the connection is closed."""
        assert self._lost is not None
        await self._lost.wait()

    async def bury(self, patience_s: float = _EXIT_S) -> str:
        """Close, wait for the end, kill what does not end; how it ended, in words."""
        if self._transport is not None:
            self._transport.close()
        elif self._socket is not None:
            self._socket.close()
            self._socket = None
        try:
            status = await asyncio.to_thread(self._process.wait, patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            status = await asyncio.to_thread(self._process.wait)
        if self._log_is_read:
            with contextlib.suppress(TimeoutError):  # somebody else may hold the other end
                await asyncio.wait_for(self._log.ended.wait(), 0.5)
            if self._log_transport is not None:
                self._log_transport.close()
        elif self._process.stdout is not None:
            self._process.stdout.close()
        return describe_exit(status, self._log.lines)


def _environment() -> dict[str, str]:
    """Ours without the keys; a checkout that is not installed is made importable, as it is here."""
    environment = {name: value for name, value in os.environ.items() if name != "GGSERVE_API_KEY"}
    if not {"site-packages", "dist-packages"} & set(_ROOT.parts):
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def describe_exit(status: int, lines: Sequence[str]) -> str:
    """`… was killed by SIGABRT; last log: GGML_ASSERT(…)`: what an operator needs to see first."""
    if status >= 0:
        text = f"the engine process ended with status {status}"
    else:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hints = {"SIGKILL": " (out of memory?)", "SIGBUS": " (model file truncated?)"}
        text = f"the engine process was killed by {name}{hints.get(name, '')}"
    telling = [line for line in lines if line.strip()]
    dump = next((i for i, line in enumerate(telling) if line.startswith(_DUMP)), len(telling))
    before = telling[:dump] or telling[dump : dump + 1]
    if before:
        alarming = [line for line in before if _ALARMING.search(line)]
        text += f"; last log: {logs.escape((alarming or before)[-1])[:300]}"
    return text


class _Connection(asyncio.Protocol):
    """Frames from the process. One callback for all that one read brought."""

    def __init__(
        self, on_messages: Callable[[list[wire.ToServer]], None], lost: asyncio.Event, child: EngineChild
    ) -> None:
        self._on_messages, self._lost, self._child = on_messages, lost, child
        self._feed = wire.server_reader().feed

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._feed(data)
        except wire.ProtocolError as error:
            log.error("[%s] protocol error, killing the engine process: %s", self._child.name, error)
            self._child.kill()
            return
        if messages:
            self._on_messages(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()


class _LogReader(asyncio.Protocol):
    """Lines that the process writes; the last that may explain its end are kept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self.lines: deque[str] = deque(maxlen=200)
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._line(line)
        if len(rest) > _LOG_LINE:
            self._line(rest)
            rest = b""
        self._rest = rest

    def _line(self, line: bytes) -> None:
        text = line[:_LOG_LINE].decode("utf-8", "replace").rstrip("\r")
        if text.strip():
            level, said = logs.relay(self._name, text)
            if level >= logging.WARNING:
                self.lines.append(said)

    def connection_lost(self, exc: Exception | None) -> None:
        self._line(self._rest)
        self._rest = b""
        self.ended.set()
