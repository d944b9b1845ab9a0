"""The proxies of deploy/, with TLS and HTTP/2, before a real HTTP server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.types import Token
from server.http.protocol import LimitedProtocol, limited_protocol
from support.fakes.engine import FakeEngine, make_app, serving, settings
from support.fakes.http_app import make_certificate
from support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = sysconfig.get_path("scripts")
HOST = "chat.example"
# By the comments on a stream without tokens the server notices that nobody reads them.
LIMITS = {"allowed_hosts": [HOST], "max_body_bytes": 8 << 20, "keep_alive_s": 0.1}
BODY = {"prompt": "Once upon a time"}


class OneToken(FakeEngine):
    """Generates the first token of a request, and the second one never."""

    def _token(self, id: int, logprobs: int | None) -> Token:
        self.delay_s = 3600.0
        return super()._token(id, logprobs)


class Site:
    """What a test's copy of a configuration has instead of the real names."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder, self.upstream = folder, urlsplit(upstream).netloc
        with closing(socket.socket()) as one, closing(socket.socket()) as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            self.http, self.https = one.getsockname()[1], two.getsockname()[1]
        self.certificate, self.key = make_certificate(folder, hosts=f"DNS:{HOST}")

    def copy(self, name: str, changes: dict[str, str]) -> Path:
        """A file of deploy/ with the changes, each of which must find its place."""
        text = (DEPLOY / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = self.folder / Path(name).name
        path.write_text(text)
        return path

    def curl(self, path: str, *arguments: str, scheme: str = "https") -> list[str]:
        port = self.https if scheme == "https" else self.http
        there = ["--resolve", f"{HOST}:{port}:127.0.0.1", f"{scheme}://{HOST}:{port}{path}"]
        return [
            "curl",
            "-sSN",
            "--http2",
            "--max-time",
            "60",
            "--cacert",
            str(self.certificate),
            *arguments,
            *there,
        ]

    def ask(self, path: str, *arguments: str, scheme: str = "https") -> str:
        """Version of HTTP, status and address that it redirects to."""
        written = ["-o", str(self.folder / "answer"), "-w", "%{http_version} %{http_code} %{redirect_url}"]
        done = subprocess.run(
            self.curl(path, *written, *arguments, scheme=scheme), capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()


def nginx(site: Site) -> list[str]:
    certificates = f"/etc/letsencrypt/live/{HOST}/"
    part = site.copy(
        "nginx.conf",
        {
            "127.0.0.1:8080": site.upstream,
            "listen 80;": f"listen 127.0.0.1:{site.http};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{site.https} ssl http2;",
            f"{certificates}fullchain.pem": str(site.certificate),
            f"{certificates}privkey.pem": str(site.key),
        },
    )
    temporary = "".join(
        f"{kind}_temp_path {site.folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = site.folder / "whole.conf"
    whole.write_text(
        f"daemon off; master_process off; pid {site.folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} include {part}; }}\n"
    )
    # Debian's are in /usr/sbin, which is not in everybody's PATH.
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-e", "stderr", "-c", str(whole)]


def caddy(site: Site) -> list[str]:
    options = (
        f"{{\n\tadmin off\n\thttp_port {site.http}\n\thttps_port {site.https}\n\tskip_install_trust\n}}\n"
    )
    certificate = f"{HOST} {{\n\ttls {site.certificate} {site.key}"
    path = site.copy("Caddyfile", {f"{HOST} {{": options + certificate, "127.0.0.1:8080": site.upstream})
    return [f"{SCRIPTS}/caddy", "run", "--adapter", "caddyfile", "--config", str(path)]


def traefik(site: Site) -> list[str]:
    routes = site.copy(
        "traefik/ggserve.yml",
        {
            "tls:\n        certResolver: letsencrypt": "tls: {}",
            "127.0.0.1:8080": site.upstream,
        },
    )
    own = {"certificates": [{"certFile": str(site.certificate), "keyFile": str(site.key)}]}
    routes.write_text(f"{routes.read_text()}tls: {json.dumps(own)}\n")
    path = site.copy(
        "traefik/traefik.yml",
        {
            '":80"': f'"127.0.0.1:{site.http}"',
            '":443"': f'"127.0.0.1:{site.https}"',
            "/etc/traefik/ggserve.yml": str(routes),
            "/var/lib/traefik": str(site.folder),
        },
    )
    return [f"{SCRIPTS}/traefik", f"--configFile={path}"]


@pytest.fixture(scope="module")
def engine() -> OneToken:
    return OneToken()


@pytest.fixture(scope="module", params=[nginx, caddy, traefik], ids=lambda proxy: proxy.__name__)
def site(request: Any, engine: OneToken, tmp_path_factory: Any) -> Iterator[Site]:
    app = make_app(engine, **LIMITS)
    protocol = limited_protocol(settings(**LIMITS), LimitedProtocol)
    with serving(app, http=protocol, server_header=False, ws="none") as upstream:
        site = Site(tmp_path_factory.mktemp("site"), upstream)
        log = (site.folder / "log").open("w+")
        environment = {"HOME": str(site.folder), "PATH": "/usr/bin"}
        process = subprocess.Popen(request.param(site), stdout=log, stderr=log, env=environment)
        try:

            def answers() -> bool:
                assert process.poll() is None, (site.folder / "log").read_text()
                return site.ask("/health").endswith("200")

            wait_until(answers)
            yield site
            assert process.poll() is None
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            log.close()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_proxy_forwards_events_at_once_and_disconnects(site: Site, engine: OneToken, stream: bool) -> None:
    engine.delay_s = 0.0
    engine.left.clear()
    body = json.dumps({**BODY, "stream": stream})
    command = site.curl("/v1/completions", "-H", "content-type: application/json", "-d", body)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        if stream:
            # A proxy that held it back would wait for a second token, which does not come.
            line = next((line for line in curl.stdout if line.startswith("data:")), "")
            assert line, "nothing came while the engine was at work"
            assert json.loads(line.removeprefix("data:"))["choices"][0]["text"]
        wait_until(lambda: engine.stats.running == 1)
        curl.kill()
    wait_until(lambda: engine.left)
    assert engine.stats.running == 0


def test_a_proxy_speaks_http_2_and_redirects_to_it(site: Site) -> None:
    assert site.ask("/health") == "2 200"
    version, status, target = site.ask("/health", scheme="http").split()
    assert (version, status) in (("1.1", "301"), ("1.1", "308"))
    assert target.startswith(f"https://{HOST}")


def test_a_body_above_the_limit_of_the_server_is_refused(site: Site) -> None:
    large = site.folder / "large"
    large.write_bytes(b" " * (8 << 20) + b"{}")
    answer = site.ask("/v1/completions", "-H", "content-type: application/json", "--data-binary", f"@{large}")
    assert answer == "2 413"
