"""The health check of containers."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from server.health_check import main
from support.fakes.engine import FakeEngine, make_app, serving
from support.fakes.http_app import make_certificate


def test_a_server_is_healthy_while_health_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    with serving(make_app(engine)) as base:
        monkeypatch.setenv("GGSERVE_PORT", str(urlsplit(base).port))
        main()
        engine.state = "restarting"
        with pytest.raises(SystemExit, match=f"{base}/health: HTTP Error 503"):
            main()
    with pytest.raises(SystemExit, match="refused"):
        main()


def test_a_server_with_a_certificate_of_its_own_is_asked_over_tls(monkeypatch, tmp_path) -> None:
    cert, key = make_certificate(tmp_path)
    monkeypatch.setenv("GGSERVE_TLS_CERT", str(cert))
    with serving(make_app(), ssl_certfile=cert, ssl_keyfile=key) as base:
        monkeypatch.setenv("GGSERVE_PORT", str(urlsplit(base).port))
        main()
