"""The server's side of a sandboxed process: starts it, exchanges messages, replaces it when it has died."""

from __future__ import annotations

import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from server.worker.transport import inherit, pair


class ChildTimeout(Exception):
    """The child did not answer in time and was killed."""


class ChildDied(Exception):
    """The child died while handling a message. cpu_limit: because it reached its limit of processor time."""

    def __init__(self, cpu_limit: bool = False) -> None:
        super().__init__("the sandboxed process died")
        self.cpu_limit = cpu_limit


class SandboxProcess:
    """One child, which answers one message at a time. It is started by the first message. Not thread-safe.

    command: runs `server.sandbox.child.serve`; the handle of the child's socket is appended. setup: the first
    message to every new child, whose answer is ignored.
    """

    def __init__(self, command: Sequence[str], setup: bytes | None = None) -> None:
        self._command, self._setup = command, setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def request(self, message: bytes, timeout_s: float) -> bytes:
        """The child's answer. Raises ChildTimeout and ChildDied; RuntimeError if no child can be started."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()  # killed between two messages, which the next one is not to blame for
        if self._process is None:
            self._start(timeout_s)
        return self._exchange(message, timeout_s)

    def kill(self) -> None:
        """End the child, from any thread. A request in progress raises ChildDied."""
        if self._process is not None:
            self._process.kill()

    def _start(self, timeout_s: float) -> None:
        ours, theirs = pair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
                **inherit(theirs),
            )
        self._connection = Connection(ours.detach())
        self._reap = weakref.finalize(self, _reap, self._process)
        if self._setup is not None:
            try:
                self._exchange(self._setup, timeout_s)
            except (ChildTimeout, ChildDied):
                raise RuntimeError("a sandboxed process does not start") from None

    def _exchange(self, message: bytes, timeout_s: float) -> bytes:
        assert self._connection is not None
        try:
            self._connection.send_bytes(message)
            if self._connection.poll(timeout_s):
                return self._connection.recv_bytes()
        except (EOFError, OSError):
            raise ChildDied(self._stop() == -getattr(signal, "SIGPROF", 0)) from None
        self._stop()
        raise ChildTimeout

    def _stop(self) -> int | None:
        """End and reap the child. Returns its exit status."""
        assert self._connection is not None
        self._connection.close()
        self._process = self._connection = None
        return self._reap()


def module_command(name: str) -> list[str]:
    """A command that runs one of our modules with this Python."""
    return [sys.executable, "-m", name]


def _reap(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    return process.wait()
