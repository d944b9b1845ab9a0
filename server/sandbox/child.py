"""The child's side of a sandbox: answers messages within limits that the operating system enforces."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection


def connect() -> Connection:
    """The connection to the server; its handle is the last argument of this process."""
    return Connection(int(sys.argv[-1]))


def serve(connection: Connection, handle: Callable[[bytes], bytes], cpu_s: float) -> None:
    """Answer messages until the server closes the connection. A message that takes more than `cpu_s` kills
    this process.
    """
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C on a terminal, or its end, is meant for our parent
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            message = connection.recv_bytes()
            limit_cpu(cpu_s)
            answer = handle(message)
            limit_cpu(0.0)
            connection.send_bytes(answer)


def limit_cpu(seconds: float) -> None:
    """Limit the processor time from now on; 0: no limit. Without effect on Windows, where only the server's
    timeout applies.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process


def limit_memory(n_bytes: int) -> None:
    """Limit the address space. Without effect on Windows and macOS."""
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (n_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
