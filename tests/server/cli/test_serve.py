"""What comes before the options are read; the server is in test_serving.py."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from server.cli import serve
from server.worker.supervision.process import StartedProcess


@pytest.fixture
def processes(monkeypatch):
    """Those that are started."""
    started = []

    def start():
        started.append(StartedProcess.start((sys.executable, "-c", "import time; time.sleep(600)")))
        return started[-1]

    class Starter:
        pass

    Starter.start = staticmethod(start)
    monkeypatch.setattr(serve, "StartedProcess", Starter)
    return started


def test_import_of_serve_loads_neither_asyncio_nor_pydantic():
    code = "import sys, server.cli.serve; print({'asyncio', 'pydantic', 'msgspec'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_help_starts_no_engine_process(processes, capsys):
    with pytest.raises(SystemExit):
        serve.run(["--help"])
    assert "ggserve serve" in capsys.readouterr().out
    assert not processes
    assert gc.isenabled()


def test_wrong_option_ends_the_engine_process(processes):
    with pytest.raises(SystemExit):
        serve.run(["--absent"])
    (process,) = processes
    assert process.in_use
    assert process.process.returncode is not None
