"""SIGHUP: distinguishes a terminal that hangs up from a request to read keys and options again."""

from __future__ import annotations

import os
import signal

# None on Windows.
SIGNALS: tuple[signal.Signals, ...] = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()


class Terminal:
    """The controlling terminal of this process when this is created; after `nohup` it counts as absent."""

    def __init__(self) -> None:
        ignored = any(signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS)
        self._was_there = has_terminal() and not ignored

    @property
    def has_hung_up(self) -> bool:
        return self._was_there and not has_terminal()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal; one that has hung up no longer counts."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
