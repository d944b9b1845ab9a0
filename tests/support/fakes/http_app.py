"""A small application behind our protocol, for tests of connections; and certificates that nobody trusts."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from server.config.settings import Settings
from server.generation.request_context import AccessRecord
from server.http.certificate import Certificate
from server.http.protocol import LimitedProtocol, limited_protocol
from server.http.tls import tls_protocol
from support.waiting import until


class App:
    """Answers every request; /flood never stops answering. /wait and /stream end once they may."""

    def __init__(self) -> None:
        self.flooding = self.waiting = self.n_left = 0
        self.may_answer = asyncio.Event()
        self.schemes: set[str] = set()
        self.records: list[AccessRecord] = []  # with paths as ids

    async def __call__(self, scope, receive, send) -> None:
        self.schemes.add(scope["scheme"])
        self.records.append(AccessRecord(scope["path"]))
        scope["ggserve.record"] = self.records[-1]
        if scope["path"] in ("/wait", "/stream"):
            await self.wait(scope["path"] == "/stream", receive, send)
            return
        flood = scope["path"] == "/flood"
        headers = [(b"content-type", b"text/plain"), *([] if flood else [(b"content-length", b"5")])]
        if scope["path"] == "/large":
            headers = [(b"content-length", b"3000000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if flood:
            self.flooding += 1
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                    if (await asyncio.wait_for(_poll(receive), 5)) == "http.disconnect":
                        return
            finally:
                self.flooding -= 1
        await send(
            {
                "type": "http.response.body",
                "body": b"x" * 3_000_000 if scope["path"] == "/large" else b"hello",
            }
        )

    async def wait(self, stream, receive, send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        part = {"type": "http.response.body", "body": b"first", "more_body": True}
        while (await receive()).get("more_body"):
            pass
        if stream:
            await send(start)
            await send(part)
        self.waiting += 1
        ends = [asyncio.create_task(self.may_answer.wait()), asyncio.create_task(receive())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if ends[1].done():
                self.n_left += 1
                return
        finally:
            self.waiting -= 1
            for end in ends:
                end.cancel()
        if not stream:
            await send(start)
        await send({**part, "body": b"last", "more_body": False})


async def _poll(receive) -> str:
    try:
        return (await asyncio.wait_for(receive(), 0.001))["type"]
    except TimeoutError:
        return ""


@asynccontextmanager
async def serving(certificate: Certificate | None = None, **limits):
    """Port, uvicorn's server and the application. `certificate`: for TLS."""
    settings = Settings(model=["x.gguf"], **limits)
    protocol = (
        tls_protocol(settings, certificate) if certificate else limited_protocol(settings, LimitedProtocol)
    )
    app = App()
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    sock = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([sock]))
    await until(lambda: server.started)
    try:
        yield sock.getsockname()[1], server, app
    finally:
        server.should_exit = server.force_exit = True
        await task


EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def make_certificate(
    folder: Path,
    name: str = "server",
    kind: Sequence[str] = EC,
    password: str | None = None,
    hosts: str = "DNS:localhost,IP:127.0.0.1",
) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key. kind: arguments of openssl."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    locked = ("-nodes",) if password is None else ("-passout", f"pass:{password}")
    names = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={hosts}")
    files = ("-keyout", key, "-out", cert, "-days", "2")
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *locked, *names, *files], check=True, capture_output=True
    )
    return cert, key
