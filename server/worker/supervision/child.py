"""An engine process as the server sees it: spawn, connect, relay its log, reap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from server import logs
from server.worker import messages as wire
from server.worker import transport
from server.worker.supervision.process import StartedProcess

log = logging.getLogger("ggserve.engine")

_EXIT_S = 2.0  # for a process to exit by itself after its connection is closed
_MAX_LINE = 4096  # bytes kept of a log line
_DUMP = "Fatal Python error"  # first line of faulthandler's output; the cause is logged before it
_ERROR_LINE = re.compile(r"GGML_ASSERT|abort|\berror\b|out of memory", re.IGNORECASE)


class EngineChild:
    """`spawn` is synchronous, so that loading can begin before the event loop runs; `attach` follows."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.name = name
        self._process = process
        self._socket: socket.socket | None = sock
        self._transport: asyncio.Transport | None = None
        self._disconnected = asyncio.Event()
        self._log = _LogReader(name)
        self._log_transport: asyncio.BaseTransport | None = None
        self._log_is_read = False

    @classmethod
    def spawn(
        cls, name: str, load: wire.LoadModel, argv: Sequence[str], started: StartedProcess | None = None
    ) -> EngineChild:
        """Start a process that loads a model, or take over `started`.

        Raises OSError if it cannot be started.
        """
        started = started or StartedProcess.start(argv)
        started.in_use = True
        with contextlib.suppress(ConnectionError):  # it has already exited, which attach will notice
            started.socket.sendall(wire.encode(load))
        started.socket.setblocking(False)
        return cls(name, started.process, started.socket)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def attach(self, on_messages: Callable[[list[wire.ToServer]], None]) -> None:
        """Deliver messages from the process in the event loop until it disconnects."""
        assert self._socket is not None
        connection = _Connection(on_messages, self)
        sock, self._socket = self._socket, None
        self._transport = await transport.connect(sock, connection)
        assert self._process.stdout is not None
        self._log_transport = await transport.read_pipe(self._process.stdout, self._log)
        self._log_is_read = True

    def send(self, message: wire.ToEngine) -> None:
        """Send a message. Never blocks; does nothing if the process has disconnected."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(message))

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def on_disconnected(self) -> None:
        self._disconnected.set()

    async def disconnected(self) -> None:
        """Wait until the process has closed its end of the connection."""
        await self._disconnected.wait()

    async def reap(self) -> str:
        """Close the connection, and wait for the exit or force it. Returns the exit reason in words."""
        if self._transport is not None:
            self._transport.close()
        elif self._socket is not None:
            self._socket.close()
            self._socket = None
        try:
            status = await asyncio.to_thread(self._process.wait, _EXIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            status = await asyncio.to_thread(self._process.wait)
        if self._log_is_read:
            with contextlib.suppress(TimeoutError):  # a child of it may hold the other end
                await asyncio.wait_for(self._log.ended.wait(), 0.5)
            if self._log_transport is not None:
                self._log_transport.close()
        elif self._process.stdout is not None:
            self._process.stdout.close()
        return describe_exit(status, self._log.lines)


def describe_exit(status: int, lines: Sequence[str]) -> str:
    """The exit reason, such as `the engine process was killed by SIGABRT; last log: GGML_ASSERT(…)`."""
    if status >= 0:
        text = f"the engine process exited with status {status}"
    else:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hints = {"SIGKILL": " (out of memory?)", "SIGBUS": " (model file truncated?)"}
        text = f"the engine process was killed by {name}{hints.get(name, '')}"
    logged = [line for line in lines if line.strip()]
    dump = next((i for i, line in enumerate(logged) if line.startswith(_DUMP)), len(logged))
    before = logged[:dump] or logged[dump : dump + 1]
    if before:
        errors = [line for line in before if _ERROR_LINE.search(line)]
        text += f"; last log: {logs.escape((errors or before)[-1])[:300]}"
    return text


class _Connection(asyncio.Protocol):
    """Decodes the frames of the process, with one callback for all messages of a read."""

    def __init__(self, on_messages: Callable[[list[wire.ToServer]], None], child: EngineChild) -> None:
        self._on_messages, self._child = on_messages, child
        self._feed = wire.server_reader().feed

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._feed(data)
        except wire.ProtocolError as error:
            log.error("[%s] protocol error, the engine process is killed: %s", self._child.name, error)
            self._child.kill()
            return
        if messages:
            self._on_messages(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._child.on_disconnected()


class _LogReader(asyncio.Protocol):
    """Relays the log lines of the process; keeps the last warnings, which may explain its exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self.lines: deque[str] = deque(maxlen=200)
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._line(line)
        if len(rest) > _MAX_LINE:
            self._line(rest)
            rest = b""
        self._rest = rest

    def _line(self, line: bytes) -> None:
        text = line[:_MAX_LINE].decode("utf-8", "replace").rstrip("\r")
        if text.strip():
            level, message = logs.relay(self._name, text)
            if level >= logging.WARNING:
                self.lines.append(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._line(self._rest)
        self._rest = b""
        self.ended.set()
