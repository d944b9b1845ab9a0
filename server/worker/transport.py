"""The socket pair between the server and an engine process, and waiting on it, on every platform.

On Windows the pair is a TCP connection on the loopback address, since there are no Unix socket pairs.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # not imported by the engine process: it takes 30 ms of its start
    import asyncio

_POLL_INTERVAL_S = 0.2  # where the system does not report a hang-up


def pair() -> tuple[socket.socket, socket.socket]:
    """The server's end and the engine's end."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        if sock.family == socket.AF_INET:  # frames are small and must not be delayed
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def inherit(sock: socket.socket) -> dict[str, Any]:
    """Arguments for Popen: the child inherits `sock` under the same number, and no other descriptor."""
    if sys.platform == "win32":
        sock.set_inheritable(True)
        return {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [sock.fileno()]})}
    return {"pass_fds": [sock.fileno()]}


async def connect(sock: socket.socket, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Register the server's end with the running event loop."""
    from asyncio import get_running_loop

    loop = get_running_loop()
    if sock.family == socket.AF_INET:
        return (await loop.create_connection(lambda: protocol, sock=sock))[0]
    return (await loop.create_unix_connection(lambda: protocol, sock=sock))[0]


async def read_pipe(pipe: IO[bytes], protocol: asyncio.Protocol) -> asyncio.BaseTransport | None:
    """Deliver the data of a Popen pipe to `protocol`.

    Returns None where event loops cannot read such pipes (Windows): a thread then reads and closes the pipe.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()
    if sys.platform != "win32":
        return (await loop.connect_read_pipe(lambda: protocol, pipe))[0]
    read_in_thread(loop, pipe, protocol)
    return None


def read_in_thread(loop: asyncio.AbstractEventLoop, pipe: IO[bytes], protocol: asyncio.Protocol) -> None:
    def read() -> None:
        with contextlib.suppress(RuntimeError), pipe:  # the loop is closed
            while data := pipe.read1(1 << 16):  # type: ignore[attr-defined]
                loop.call_soon_threadsafe(protocol.data_received, data)
            loop.call_soon_threadsafe(protocol.connection_lost, None)

    threading.Thread(target=read, name="read-log", daemon=True).start()


def wait_readable(sock: socket.socket, timeout_s: float | None) -> bool:
    """Block until `sock` has data or is closed; False after `timeout_s`."""
    return bool(select.select([sock], [], [], timeout_s)[0])


def watch(sock: socket.socket, on_closed: Callable[[], object]) -> None:
    """Call `on_closed` from a thread as soon as the other end of `sock` is closed."""

    def wait() -> None:
        (wait_end_of_data if sock.family == socket.AF_INET else wait_hang_up)(sock)
        on_closed()

    threading.Thread(target=wait, name="watch-server", daemon=True).start()


def wait_hang_up(sock: socket.socket) -> None:
    """Wait until the other end is closed."""
    if sys.platform != "win32":
        poll = select.poll()
        poll.register(sock.fileno(), 0)  # hang-up is always reported
        poll.poll()


def wait_end_of_data(sock: socket.socket) -> None:
    """Wait for the same on TCP, where it shows only after all earlier data has been read."""
    while True:
        try:
            select.select([sock], [], [])
            if not sock.recv(1, socket.MSG_PEEK):
                return
        except OSError:
            return
        time.sleep(_POLL_INTERVAL_S)
