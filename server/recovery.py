"""What to do when an engine process has died: start again, suspect a request, or despair.

A request that may have been running gets a strike at each death, and loses them with its next token. With
two strikes it is suspected of being the cause. One suspect is given up; several are tried one at a time, so
that the innocent ones get through. Deaths that follow each other without a token between them end it all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.streams import Stream

MAX_DEATHS = 3  # within WINDOW_S and without a token; one more is too many
WINDOW_S = 60.0
FIRST_PAUSE_S = 0.5  # before the second restart in a row; doubles
STRIKES = 2


@dataclass(frozen=True)
class Verdict:
    """After a death: the request to give up, if one is guilty, and whether and when to restart."""

    culprit: Stream | None
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

    def died(self, streams: Sequence[Stream]) -> Verdict:
        """`streams`: the unfinished ones, oldest first. The oldest of those sent are the ones that ran."""
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < WINDOW_S), now]
        for stream in [stream for stream in streams if stream.sent][: self._parallel]:
            stream.strikes += 1
        suspects = [stream for stream in streams if stream.sent and stream.strikes >= STRIKES]
        culprit = suspects[0] if len(suspects) == 1 else None
        if culprit is not None:
            self._deaths.clear()  # explained
        n = len(self._deaths)
        return Verdict(culprit, n > MAX_DEATHS, FIRST_PAUSE_S * 2 ** (n - 2) if n > 1 else 0.0)

    @staticmethod
    def sendable(streams: Sequence[Stream]) -> list[Stream]:
        """Which of the unfinished streams to give to the engine now."""
        suspects = [stream for stream in streams if stream.strikes >= STRIKES]
        if not suspects:
            return [stream for stream in streams if not stream.sent]
        if any(stream.sent for stream in suspects):
            return []  # one is being tried
        return suspects[:1]
