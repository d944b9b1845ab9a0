"""The health check of containers."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from server.health_check import main
from support.fakes.engine import FakeEngine, make_app, serving
from support.fakes.http_app import make_certificate
from support.server_process import ServerProcess


def test_check_succeeds_only_if_health_answers_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    with serving(make_app(engine)) as base:
        port = urlsplit(base).port
        monkeypatch.setenv("GGSERVE_PORT", str(port))
        main()
        engine.state = "restarting"
        with pytest.raises(SystemExit, match=f"^/health of port {port}: status 503$"):
            main()
    with pytest.raises(SystemExit, match="refused"):
        main()


@pytest.mark.e2e
def test_check_uses_tls_if_the_config_file_has_a_certificate(tmp_path) -> None:
    cert, key = make_certificate(tmp_path)
    config = tmp_path / "ggserve.yml"
    config.write_text(f"tls_cert: {cert}\ntls_key: {key}\n")
    check = (sys.executable, "-m", "server.health_check")
    with ServerProcess("--threads", "1", "--config", str(config)) as server:
        environment = {"GGSERVE_PORT": str(urlsplit(server.url).port)}
        assert server.url.startswith("https://")
        subprocess.run(check, check=True, timeout=20, env=environment)
        assert server.end() == 0
        done = subprocess.run(check, timeout=20, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "refused" in done.stderr
