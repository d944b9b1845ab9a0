"""Starts an engine process. Imports little, so that it can run first when the server starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from server.worker import transport

SECRETS = ("GGSERVE_API_KEY", "GGSERVE_TLS_KEY_PASSWORD")  # only the server needs them
# -P: do not import modules from the working directory.
DEFAULT_ARGV = (sys.executable, "-P", "-m", "server.worker.process.main")
_ROOT = Path(__file__).resolve().parents[3]


class StartedProcess:
    """An engine process that waits for its load message, and the server's end of the connection."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process, self.socket = process, sock
        self.in_use = False  # or was ended

    @classmethod
    def start(cls, argv: Sequence[str] = DEFAULT_ARGV) -> Self:
        """Start the process. Raises OSError if that fails."""
        ours, theirs = transport.pair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [*argv, "--fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    # Output of a backend goes to the log; the server's own stdout belongs to the user.
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=_environment(),
                    **transport.inherit(theirs),
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, ours)

    def discard(self) -> None:
        """End a process that is not needed; it exits when it is disconnected."""
        self.in_use = True
        self.socket.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.kill()
        self.process.wait()


def _environment() -> dict[str, str]:
    """The server's environment without secrets; a checkout that is not installed stays importable."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    if not {"site-packages", "dist-packages"} & set(_ROOT.parts):
        paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")  # else numpy starts threads, which spin
    return environment
