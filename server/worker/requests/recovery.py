"""What to do after an engine process has died: restart it, give up a request, or give up the engine.

Each request that may have been running at a crash has that crash counted against it; its next token clears
the count. After two crashes it is suspected of being the cause. A single suspect is given up; several are
retried one at a time, so that the others get through. Too many crashes in a row without a token end the
engine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.worker.requests.pending_tasks import PendingTask
from server.worker.requests.stream import Stream

MAX_CRASHES = 3  # within WINDOW_S and without a token in between; one more is too many
WINDOW_S = 60.0
FIRST_DELAY_S = 0.5  # before the second restart in a row; doubles each time
SUSPECT_AFTER = 2  # crashes


@dataclass(frozen=True)
class RestartDecision:
    """culprit: the request or task to give up. give_up: do not restart. delay_s: wait before the restart."""

    culprit: Stream | PendingTask | None
    give_up: bool
    delay_s: float


class Recovery:
    """Remembers the crashes of one engine. parallel: the number of requests that may run at the same time.

    crashes: the times of recent ones; cleared by the caller when the engine produces output.
    """

    def __init__(self, parallel: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._parallel, self._clock = parallel, clock
        self.crashes: list[float] = []

    def on_crash(self, streams: Sequence[Stream], tasks: Sequence[PendingTask] = ()) -> RestartDecision:
        """Decide what to do, given the unfinished streams and tasks, oldest first.

        Of the streams that were sent, the first `parallel` of each client may have been running: those that
        have begun, then by priority and age, as `engine.scheduler.fair_share` admits them. Any task may have
        been running.
        """
        now = self._clock()
        self.crashes = [*(at for at in self.crashes if now - at < WINDOW_S), now]
        n_running: Counter[str] = Counter()  # by client
        for stream in sorted(streams, key=lambda stream: (not stream.has_progress, stream.request.priority)):
            if stream.sent and n_running[stream.request.client] < self._parallel:
                n_running[stream.request.client] += 1
                stream.crashes += 1
        for task in tasks:
            task.crashes += task.sent
        unfinished: list[Stream | PendingTask] = [*streams, *tasks]
        suspects = [one for one in unfinished if one.sent and one.crashes >= SUSPECT_AFTER]
        culprit = suspects[0] if len(suspects) == 1 else None
        if culprit is not None:
            self.crashes.clear()  # explained
        n = len(self.crashes)
        return RestartDecision(culprit, n > MAX_CRASHES, FIRST_DELAY_S * 2 ** (n - 2) if n > 1 else 0.0)

    @staticmethod
    def sendable(unfinished: Sequence[Stream | PendingTask]) -> list[Stream | PendingTask]:
        """The streams and tasks to send to the engine now."""
        suspects = [one for one in unfinished if one.crashes >= SUSPECT_AFTER]
        if not suspects:
            return [one for one in unfinished if not one.sent]
        if any(one.sent for one in suspects):
            return []  # one is being retried, alone
        return suspects[:1]
