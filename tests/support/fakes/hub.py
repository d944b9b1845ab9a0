"""A server that speaks the Hugging Face Hub's routes for downloads, with the mishaps that networks have."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """files: path → bytes. gated: the files need a token. damaged: paths whose bytes arrive with an error."""

    files: Mapping[str, bytes]
    licence: str = "apache-2.0"
    gated: bool = False
    damaged: frozenset[str] = frozenset()


@dataclass
class FakeHub:
    """repos: by OWNER/REPO. break_after: the next download ends without notice after so many bytes.

    requests: method, path and Range of all requests. token: the one that opens gated repositories.
    """

    repos: dict[str, Repo]
    url: str = ""
    break_after: int | None = None
    token: str = "hf_right"
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            return self._info(match[1])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._resolve(match[1], match[2])
        if match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            return self._bytes(match[1], match[2])
        return self._reply(404, {"X-Error-Code": "EntryNotFound"})

    def _reply(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _info(self, name: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            # The Hub does not say whether a repository is private or not there.
            return self._reply(
                401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            )
        siblings = [
            {
                "rfilename": path,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134},
            }
            for path, data in repo.files.items()
        ]
        document = {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": {"license": repo.licence}}
        return self._reply(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _resolve(self, name: str, path: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            return self._reply(401, {"X-Error-Code": "RepoNotFound"})
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        if path not in repo.files:
            return self._reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = repo.files[path]
        headers = {
            "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{path}",
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": COMMIT,
        }
        return self._reply(302, headers)

    def _bytes(self, name: str, path: str) -> None:
        repo = self.hub.repos[name]
        data = repo.files[path]
        if path in repo.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin, status, headers = 0, 200, {"Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, size = int(match[1]), len(data)
            data = data[begin : int(match[2]) + 1 if match[2] else size]
            status, headers["Content-Range"] = 206, f"bytes {begin}-{begin + len(data) - 1}/{size}"
        if self.hub.break_after is None:
            return self._reply(status, headers, data)
        n_bytes, self.hub.break_after = self.hub.break_after, None
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:n_bytes])
        self.wfile.flush()
        self.close_connection = True
        return None


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """A client may leave; the tests see what they need on its side."""


@contextmanager
def fake_hub(repos: Mapping[str, Repo]) -> Iterator[FakeHub]:
    """The server, in threads, until the block ends."""
    hub = FakeHub(dict(repos))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HUB_CACHE do to a process that starts."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
