"""Environments of clients whose requirements exclude those of the others: made when they are first needed.

They lie in the cache, one for each state of `requirements-NAME.txt`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from server.models.cache import cache_dir

HERE = Path(__file__).parents[1] / "clients" / "live"
LIMIT_S = 800  # of a client's run: a runner may be slow
# Installed without what it requires: its file lists what is needed of that.
BARE = {"open-webui": "open-webui==0.12.4"}


def executable(name: str, command: str) -> Path:
    """A command of an environment."""
    requirements = HERE / f"requirements-{name}.txt"
    state = hashlib.sha256(requirements.read_bytes() + BARE.get(name, "").encode()).hexdigest()[:12]
    folder = cache_dir() / "clients" / f"{name}-{sys.version_info.major}.{sys.version_info.minor}-{state}"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check")
        _run(*pip, "-r", str(requirements))
        if name in BARE:
            _run(*pip, "--no-deps", BARE[name])
        complete.touch()
    return folder / "bin" / command


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
