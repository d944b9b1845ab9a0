"""Heartbeats of the engine process, sent by a separate thread whatever the engine's thread computes.

A stopped process sends none. A hung computation shows in their contents: how long the current operation has
run, how long the process has used neither the processor nor the disk, and how many rows are being computed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from server.worker.messages import Heartbeat

_USED = 0.01  # of one core: less is what the heartbeats themselves use


def processor_seconds_and_reads() -> tuple[float, int]:
    """Processor time of this process in seconds, and its page faults and reads that went to a disk."""
    if sys.platform == "win32":
        return time.process_time(), 0
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_majflt + usage.ru_inblock


class Pulse:
    """The current activity of the engine's thread, which calls `begin` and `end`; a second thread sends it.

    interval_s: between two heartbeats. usage: see `processor_seconds_and_reads`. rows: of the current or last
    batch; 0: there was none.
    """

    def __init__(
        self,
        interval_s: float,
        send: Callable[[Heartbeat], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        usage: Callable[[], tuple[float, int]] = processor_seconds_and_reads,
    ) -> None:
        self._interval_s, self._send, self._clock, self._usage = interval_s, send, clock, usage
        self._began: float | None = None  # of the present operation
        self.rows: Callable[[], int] = lambda: 0
        self._longest_s = 0.0
        self._most_rows = 0
        self._used = usage()
        self._measured_at = self._active_at = self._read_at = clock()
        self._stop = threading.Event()

    def begin(self) -> None:
        """An operation begins: loading, or everything until the next wait for messages."""
        self._began = self._clock()

    def end(self) -> None:
        rows = self.rows()
        if self._began is not None and rows:
            self._longest_s = max(self._longest_s, self._clock() - self._began)
            self._most_rows = max(self._most_rows, rows)
        self._began = None

    def end_loading(self) -> None:
        """Like `end`, but after loading, which says nothing about the length of steps."""
        self._began = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="heartbeats", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def heartbeat(self) -> Heartbeat:
        now, used = self._clock(), self._usage()
        seconds, reads = used[0] - self._used[0], used[1] - self._used[1]
        if reads:
            self._read_at = now
        if reads or seconds >= _USED * (now - self._measured_at):
            self._active_at = now
        self._used, self._measured_at = used, now
        began = self._began
        return Heartbeat(
            busy_s=now - began if began is not None else 0.0,
            quiet_s=now - self._active_at,
            longest_s=self._longest_s,
            unread_s=now - self._read_at,
            rows=self.rows(),
            most_rows=self._most_rows,
        )

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._send(self.heartbeat())
            except OSError:  # the server is gone, which ends the process
                return
