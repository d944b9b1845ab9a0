"""A real `ggserve serve` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "server")
BUNDLED = ("--model", str(ROOT / "models" / "stories.gguf"))


def environment() -> dict[str, str]:
    """One thread for each engine where tests run in parallel: threads that spin would wait for each other."""
    parallel = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1
    return {**os.environ, "GGSERVE_THREADS": "1"} if parallel else dict(os.environ)


def ggserve(*arguments: str, **kwargs) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, text=True, capture_output=True, timeout=120, **kwargs
    )


class ServerProcess:
    """Start it, wait for its address, talk to it, stop it.

    bundled: serve the bundled model unless arguments name one. variables: of the environment.
    prefix: a command that runs the server.
    """

    def __init__(
        self,
        *arguments: str,
        bundled: bool = True,
        variables: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        if bundled and not any(re.match("-m$|--model(=|$)", argument) for argument in arguments):
            arguments = (*BUNDLED, *arguments)
        self.process = subprocess.Popen(
            [*prefix, *COMMAND, "serve", "--port", "0", *arguments],
            cwd=ROOT,
            env=environment() | dict(variables or {}),
            text=True,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self.wait_for(r"on (https?://\S+), ready")[1]
        except BaseException:
            self.process.kill()
            self.wait()
            raise

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("(end)")
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """The first log line, past or future, that matches."""
        seen = 0
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if match := re.search(pattern, line):
                        return match
                seen = len(self.lines)
                assert "(end)" not in self.lines, self.lines
                assert self._changed.wait(end - time.monotonic()), f"no {pattern!r} in {self.lines}"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def engine_pids(self) -> list[int]:
        import psutil

        children = psutil.Process(self.process.pid).children()
        pids = []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that is just ending
                if "server.worker.process.main" in child.cmdline():
                    pids.append(child.pid)
        return pids

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()
        return status

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.wait()


def mistakes(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that a failed command says, without a traceback."""
    assert done.returncode == status, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line
