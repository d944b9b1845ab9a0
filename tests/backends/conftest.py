"""Devices besides the CPU. `make test` runs these tests where GGSERVE_BACKENDS has clblast and rpc.

CPUs count as OpenCL devices here (GGSERVE_CLBLAST_CPU=1), so that PoCL can stand in for a GPU.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["GGSERVE_CLBLAST_CPU"] = "1"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Worker:
    """`ggserve rpc-worker` in a process of its own."""

    def __init__(self, *arguments: str, log: Path | None = None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "server", "rpc-worker", "--port", self.address.split(":")[1]]
        with (log or Path(os.devnull)).open("w") as message:
            self.process = subprocess.Popen(
                [*command, "--threads", "1", *arguments], stdout=message, stderr=message
            )
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", int(self.address.split(":")[1])), 1).close()
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.05)
        raise AssertionError("the worker does not listen")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture(scope="session")
def rpc_cpu() -> Iterator[str]:
    """The address of a worker that lends the CPU."""
    worker = Worker("--device", "CPU")
    yield worker.address
    worker.stop()


@pytest.fixture(scope="session")
def rpc_clblast() -> Iterator[str]:
    """The address of a worker that lends an OpenCL device."""
    worker = Worker("--device", "CLBlast0")
    yield worker.address
    worker.stop()


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    created: list[Worker] = []

    def make(*arguments: str, log: Path | None = None) -> Worker:
        created.append(Worker(*arguments, log=log))
        return created[-1]

    yield make
    for worker in created:
        worker.process.kill()
        worker.process.wait()
