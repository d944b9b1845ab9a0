"""What to do when an engine process has died: start again, suspect a request, or despair.

A request that may have been running gets a strike at each death, and loses them with its next token. With
two strikes it is suspected of being the cause. One suspect is given up; several are tried one at a time, so
that the innocent ones get through. Deaths that follow each other without a token between them end it all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.worker.pending_tasks import PendingTask
from server.worker.stream import Stream

MAX_DEATHS = 3  # within WINDOW_S and without a token; one more is too many
WINDOW_S = 60.0
FIRST_PAUSE_S = 0.5  # before the second restart in a row; doubles
STRIKES = 2


@dataclass(frozen=True)
class Verdict:
    """After a death: the request to give up, if one is guilty, and whether and when to restart."""

    culprit: Stream | PendingTask | None
    hopeless: bool
    pause_s: float


class Recovery:
    """The memory of one engine's deaths. `parallel`: how many requests may run at a time."""

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._deaths: list[float] = []

    def produced(self) -> None:
        """A token came: the engine works."""
        if self._deaths:
            self._deaths.clear()

    def died(self, streams: Sequence[Stream], calls: Sequence[PendingTask] = ()) -> Verdict:
        """The unfinished ones, oldest first. The oldest streams of those sent ran, and maybe every call."""
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < WINDOW_S), now]
        ran = [stream for stream in streams if stream.sent][: self._parallel]
        for stream in ran:
            stream.strikes += 1
        for call in calls:
            call.strikes += call.sent
        all: list[Stream | PendingTask] = [*streams, *calls]
        suspects = [one for one in all if one.sent and one.strikes >= STRIKES]
        culprit = suspects[0] if len(suspects) == 1 else None
        if culprit is not None:
            self._deaths.clear()  # explained
        n = len(self._deaths)
        return Verdict(culprit, n > MAX_DEATHS, FIRST_PAUSE_S * 2 ** (n - 2) if n > 1 else 0.0)

    @staticmethod
    def sendable(all: Sequence[Stream | PendingTask]) -> list[Stream | PendingTask]:
        """Which of the unfinished ones to give to the engine now."""
        suspects = [one for one in all if one.strikes >= STRIKES]
        if not suspects:
            return [one for one in all if not one.sent]
        if any(one.sent for one in suspects):
            return []  # one is being tried
        return suspects[:1]
