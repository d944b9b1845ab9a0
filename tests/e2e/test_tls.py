"""HTTPS by --tls-cert and --tls-key, as clients meet it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import openai
import pytest

from support.fakes.http_app import make_certificate
from support.server_process import COMMAND, ROOT, ServerProcess, ggserve, mistakes
from support.waiting import wait_until

BODY = {"prompt": "Once upon a time", "temperature": 0}
GAUGE = re.compile(r"^ggserve_(?:running|waiting|cells_used){.*} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files) -> Iterator[ServerProcess]:
    with ServerProcess("--threads", "1", "--tls-cert", str(files[0]), "--tls-key", str(files[1])) as process:
        yield process
        assert process.end() == 0
        assert not any("Traceback" in line for line in process.lines)


def connect(server: ServerProcess, cert: Path) -> closing[http.client.HTTPSConnection]:
    context = ssl.create_default_context(cafile=cert)
    return closing(http.client.HTTPSConnection(urlsplit(server.url).netloc, timeout=120, context=context))


def request(connection: http.client.HTTPSConnection, **fields: object) -> http.client.HTTPResponse:
    body = json.dumps({**BODY, **fields})
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    return connection.getresponse()


def test_official_client_over_tls_gets_answers_and_streams(server, files, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    assert server.url.startswith("https://127.0.0.1:")
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as api:
        whole = api.completions.create(model="stories", max_tokens=30, **BODY)
        parts = api.completions.create(model="stories", max_tokens=30, stream=True, **BODY)
        assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text != ""
        with api.completions.create(model="stories", max_tokens=4000, stream=True, **BODY) as stream:
            next(iter(stream))  # and leave
    wait_until(lambda: is_quiet(server, files[0]))


def is_quiet(server: ServerProcess, cert: Path) -> bool:
    with urlopen(
        server.url + "/metrics", timeout=60, context=ssl.create_default_context(cafile=cert)
    ) as reply:
        values = GAUGE.findall(reply.read().decode())
    assert len(values) == 3
    return not any(map(float, values))


def test_terminal_chat_trusts_the_configured_certificate(server, files):
    command = [*COMMAND, "chat", "--url", server.url, "--max-tokens", "5"]

    def chat(**more: str) -> subprocess.CompletedProcess[str]:
        environment = {**{k: v for k, v in os.environ.items() if k != "SSL_CERT_FILE"}, **more}
        return subprocess.run(
            command, cwd=ROOT, env=environment, input="Hi", text=True, capture_output=True, timeout=120
        )

    line = mistakes(chat(), 2)
    assert "its certificate is not trusted (self-signed certificate)" in line
    assert "SSL_CERT_FILE" in line
    done = chat(SSL_CERT_FILE=str(files[0]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_renewed_certificate_is_read_on_sighup_and_streams_continue(tmp_path):
    cert, key = make_certificate(tmp_path)
    old = tmp_path / "old.pem"
    old.write_bytes(cert.read_bytes())
    with ServerProcess("--threads", "1", "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        with connect(server, old) as running:
            stream = request(running, stream=True, max_tokens=300, ignore_eos=True)
            assert stream.readline().startswith(b"data: ")
            make_certificate(tmp_path)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("read the certificate")
            with connect(server, cert) as connection:
                assert json.load(request(connection, max_tokens=1))["usage"]["completion_tokens"] == 1
            with connect(server, old) as connection, pytest.raises(ssl.SSLCertVerificationError):
                request(connection, max_tokens=1)
            assert stream.read().endswith(b"data: [DONE]\n\n")
        assert server.end() == 0


def test_unusable_certificate_files_end_the_start_with_one_line(tmp_path, files):
    cert, key = files
    _, other_key = make_certificate(tmp_path)
    absent = tmp_path / "absent.pem"
    for options, message in [
        (("--tls-cert", absent, "--tls-key", key), f"--tls-cert {absent}: No such file or directory"),
        (("--tls-cert", cert, "--tls-key", other_key), f"--tls-key {other_key}: is not the key"),
        (("--tls-key", key), "tls_key: needs tls_cert"),
    ]:
        line = mistakes(ggserve("serve", "--port", "0", *map(str, options)), 2)
        assert line.startswith(f"ggserve: {message}")
