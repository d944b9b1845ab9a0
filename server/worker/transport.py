"""The socket between the server and an engine process, on every system: made, handed over, joined, watched.

On Windows it is a pair of TCP sockets on the loopback address, since there are no others.
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

if TYPE_CHECKING:
    import asyncio

_LOOK_EVERY_S = 0.2  # where the system does not tell that the other end was closed


def pair() -> tuple[socket.socket, socket.socket]:
    """The server's end and the engine's."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        if sock.family == socket.AF_INET:  # frames are small, and the other side waits for them
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def handed_over(sock: socket.socket) -> dict[str, Any]:
    """Arguments of Popen with which the child has `sock` under the same number, and no other of ours."""
    if sys.platform == "win32":
        sock.set_inheritable(True)
        return {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [sock.fileno()]})}
    return {"pass_fds": [sock.fileno()]}


async def join(sock: socket.socket, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Give our end to the running event loop."""
    from asyncio import get_running_loop  # the engine process does without: 30 ms of its start

    loop = get_running_loop()
    if sock.family == socket.AF_INET:
        return (await loop.create_connection(lambda: protocol, sock=sock))[0]
    return (await loop.create_unix_connection(lambda: protocol, sock=sock))[0]


async def read_pipe(pipe: IO[bytes], protocol: asyncio.Protocol) -> asyncio.BaseTransport | None:
    """Deliver what arrives in a pipe of Popen's to `protocol`.

    None where event loops cannot read such pipes (Windows): a thread does it then, and closes the pipe.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()
    if sys.platform != "win32":
        return (await loop.connect_read_pipe(lambda: protocol, pipe))[0]
    read_in_thread(loop, pipe, protocol)
    return None


def read_in_thread(loop: asyncio.AbstractEventLoop, pipe: IO[bytes], protocol: asyncio.Protocol) -> None:
    def read() -> None:
        with contextlib.suppress(RuntimeError), pipe:  # the loop is closed: nobody wants to know any more
            while data := pipe.read1(1 << 16):  # type: ignore[attr-defined]
                loop.call_soon_threadsafe(protocol.data_received, data)
            loop.call_soon_threadsafe(protocol.connection_lost, None)

    threading.Thread(target=read, name="read-log", daemon=True).start()


def watch(sock: socket.socket, closed: Callable[[], object]) -> None:
    """Call `closed`, from a thread, as soon as the other end of `sock` is closed."""

    def wait() -> None:
        (end_of_data if sock.family == socket.AF_INET else hang_up)(sock)
        closed()

    threading.Thread(target=wait, name="watch-server", daemon=True).start()


def hang_up(sock: socket.socket) -> None:
    """Wait for the other end to be closed."""
    if sys.platform != "win32":
        poll = select.poll()
        poll.register(sock.fileno(), 0)  # hang-up is always reported
        poll.poll()


def end_of_data(sock: socket.socket) -> None:
    """The same for TCP: it shows only once all that was sent before has been read."""
    while True:
        try:
            select.select([sock], [], [])
            if not sock.recv(1, socket.MSG_PEEK):
                return
        except OSError:
            return
        time.sleep(_LOOK_EVERY_S)
