"""Terminals that hang up, on a terminal of the system."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

# A session of its own with the terminal at stdin, which says at each SIGHUP what it takes it for.
CHILD = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
from server.http.hangup import Terminal
terminal = Terminal()
signal.signal(signal.SIGHUP, lambda number, frame: print(terminal.has_hung_up, flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("arguments", "after"), [((), "True"), (("nohup",), "False")])
def test_terminal_hangup_is_told_from_a_signal(arguments, after):
    master, slave = pty.openpty()
    command = [sys.executable, "-c", CHILD, *arguments]
    with subprocess.Popen(
        command, stdin=slave, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        os.close(slave)
        try:
            assert child.stdout.readline() == "ready\n"
            os.kill(child.pid, 1)
            assert child.stdout.readline() == "False\n"
            os.close(master)
            assert child.stdout.readline() == f"{after}\n"
        finally:
            child.kill()
