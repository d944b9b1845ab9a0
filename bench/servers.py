"""Starts and stops the servers that are compared, with the same settings, and weighs them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent


def is_healthy(port: int) -> bool:
    """Whether a server on this machine answers /health with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@dataclass(frozen=True)
class Settings:
    """What both servers are told."""

    model: Path
    threads: int
    context: int  # tokens of one session
    parallel: int
    batch: int
    flash_attn: str = "auto"
    device: str | None = None  # where all layers are; None: the CPU


def commands(s: Settings, port: int, peer_python: str) -> dict[str, list[str]]:
    common = [
        "--model",
        str(s.model),
        "--port",
        str(port),
        "--threads",
        str(s.threads),
        "--context-size",
        str(s.context),
        "--parallel",
        str(s.parallel),
        "--batch-size",
        str(s.batch),
        "--flash-attn",
        s.flash_attn,
    ]
    return {
        "ggserve": [
            sys.executable,
            "-m",
            "server",
            "serve",
            *common,
            "--max-batch-tokens",
            str(s.batch),
            "--kv-cells",
            str(s.context * s.parallel),
            *(["--use-gpu", "true", "--device", s.device] if s.device else ["--use-gpu", "false"]),
            "--log-level",
            "warning",
        ],
        "xllamacpp": [peer_python, str(HERE / "peer.py"), *common, *(["--gpu"] if s.device else [])],
    }


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """A server process and its children, ready when entered, gone when left."""

    def __init__(self, name: str, settings: Settings, peer_python: str = sys.executable) -> None:
        self.name, self.port = name, free_port()
        self.command = commands(settings, self.port, peer_python)[name]
        self.load_s = 0.0

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        environment = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("GGSERVE_") or k in ("GGSERVE_CACHE", "GGSERVE_CLBLAST_CPU")
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server has its bytecode
        start = time.perf_counter()
        self._process = subprocess.Popen(
            self.command, cwd=HERE.parent, env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            while not is_healthy(self.port):
                if self._process.poll() is not None or time.perf_counter() - start > 300:
                    raise RuntimeError(f"{self.name} did not start:\n{self.log()}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        self.load_s = time.perf_counter() - start
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(f"the last lines of {self.name}'s log:\n{self.log()}", file=sys.stderr)
        self.stop()

    def log(self) -> str:
        """The last lines that it wrote."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-30:])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def memory(self) -> dict[str, int]:
        """Bytes of it and its descendants: `rss_peak` (sum of each one's peak) and `pss` now."""
        rss = pss = anonymous = 0
        for pid in _family(self._process.pid):
            try:
                rss += _field(f"/proc/{pid}/status", "VmHWM:")
                pss += _field(f"/proc/{pid}/smaps_rollup", "Pss:")
                anonymous += _field(f"/proc/{pid}/smaps_rollup", "Pss_Anon:")
            except (FileNotFoundError, ProcessLookupError):
                continue
        return {"rss_peak": rss, "pss": pss, "pss_anon": anonymous}

    def usage(self) -> dict[str, int]:
        """Of it and its descendants together: `pss` in bytes, open file descriptors `fds`, `threads`."""
        threads = fds = 0
        for pid in _family(self._process.pid):
            try:
                fds += len(os.listdir(f"/proc/{pid}/fd"))
                threads += len(os.listdir(f"/proc/{pid}/task"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return {"pss": self.memory()["pss"], "fds": fds, "threads": threads}


def _field(path: str, name: str) -> int:
    with open(path) as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _family(root: int) -> list[int]:
    """root and all its descendants."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    parents[int(entry)] = int(f.read().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    actual = [root]
    for pid in actual:  # grows while it is walked
        actual += [child for child, parent in parents.items() if parent == pid]
    return actual
