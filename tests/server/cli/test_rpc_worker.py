"""An RPC worker that cannot or must not listen says why in a line."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "rpc-worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_worker_on_a_public_address_is_refused() -> None:
    done = worker("--host", "0.0.0.0", "--port", "50999")
    assert done.returncode == 2
    assert "--i-know-this-is-unauthenticated" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.e2e
def test_mistakes_are_reported_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as accepted:
        port = str(accepted.getsockname()[1])
        done = worker("--port", port)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot listen on" in done.stderr
    done = worker("--device", "nothing", "--port", "50998")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "unknown device nothing" in done.stderr
