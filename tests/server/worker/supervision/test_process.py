"""Engine processes that are started before it is known what they load."""

from __future__ import annotations

import sys

from server.http.certificate import PASSWORD_VARIABLE
from server.worker.supervision import process
from server.worker.supervision.process import StartedProcess


def test_engine_process_gets_no_secrets(monkeypatch):
    secrets = ("GGSERVE_API_KEY", PASSWORD_VARIABLE)
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("GGSERVE_PORT", "1")
    environment = process._environment()
    assert environment.keys().isdisjoint(secrets)
    assert environment["GGSERVE_PORT"] == "1"


def test_a_process_that_is_discarded_has_ended():
    started = StartedProcess.start((sys.executable, "-c", "import time; time.sleep(600)"))
    assert not started.in_use
    started.discard()
    assert started.in_use
    assert started.process.returncode is not None
