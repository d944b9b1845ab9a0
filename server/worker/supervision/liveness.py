"""Whether an engine process is alive, slow or hung, judged by its heartbeats. Pure; the caller supplies the
clock.

A process that sends no heartbeat is stopped. In one that does, a step hangs if it runs far longer than
expected from the longest steps before it and from the numbers of rows. A large model on a slow machine uses
the processor or the disk all the time, so a step that uses them gets more time than one that does not. If
nothing is known yet, or the step reads weights that were evicted, it gets BUSY_STEP times the timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server.worker.messages import Heartbeat

HEARTBEATS = 8  # per timeout
MAX_INTERVAL_S = 1.0  # between two of them
NOTICED = 0.5  # of the timeout without a heartbeat: the engine is reported as stalled
LOADING = 6  # times the timeout without a heartbeat: libraries that are loaded may hold Python's lock
QUIET_STEP = 3  # times the timeout: the least that a step may take
BUSY_STEP = 60  # times the timeout: the least where it uses the processor and nothing is known, or the disk
LONGER = 10  # times as long as expected: the engine is reported as stalled, and killed if it does nothing
BUSY_LONGER = 3  # times as long as that, if it uses the processor
PATIENCE_S = 600.0  # after a step was cut off, steps get twice the time: the process may only have been slow


class Verdict(NamedTuple):
    """What is wrong, in words; empty: nothing. hung: beyond recovery, to be killed."""

    reason: str = ""
    hung: bool = False


class Liveness:
    """One per model, across its engine processes. timeout_s: `--engine-timeout-s`.

    interval_s: the interval at which the process should send heartbeats.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self.interval_s = min(MAX_INTERVAL_S, timeout_s / HEARTBEATS)
        self._timeout_s, self._clock = timeout_s, clock
        self._longest_s = 0.0
        self._most_rows = 0
        self._patience = 1.0
        self._patient_until = 0.0
        self._cpu_computes = True
        self._waits_for_remote = False
        self.on_start()

    @property
    def step_s(self) -> float:
        """How long the current step had run at the last heartbeat."""
        return self._last.busy_s

    def on_start(self) -> None:
        """A new process has started."""
        self._last_message_at = self._checked_at = self._advanced_at = self._clock()
        self._last = Heartbeat(0.0, 0.0, 0.0)
        self._loaded = False

    def on_loaded(self, info: Mapping[str, Any]) -> None:
        """`info`: the model's description; its placement says which devices compute."""
        devices = [str(name) for name in info.get("placement") or ["CPU"]]
        self._cpu_computes = any(name.startswith("CPU") for name in devices)
        self._waits_for_remote = any(name.startswith("RPC") for name in devices)
        self._loaded = True
        self.on_progress()

    def on_heartbeat(self, heartbeat: Heartbeat) -> None:
        self._last_message_at = self._clock()
        self._last = heartbeat
        if self._loaded:
            self._longest_s = max(self._longest_s, heartbeat.longest_s)
            self._most_rows = max(self._most_rows, heartbeat.most_rows)

    def on_progress(self) -> None:
        """Another message has arrived, so the engine's thread is working."""
        self._last_message_at = self._advanced_at = self._clock()
        self._last = Heartbeat(0.0, 0.0, 0.0)

    def check(self) -> Verdict:
        """Called several times per timeout. After a pause of the server itself, counting starts again."""
        now = self._clock()
        paused = now - self._checked_at > max(1.0, self._timeout_s / 2)
        self._checked_at = now
        if paused:
            self._last_message_at = self._advanced_at = now
            return Verdict()
        silence_s = now - self._last_message_at
        allowed_s = self._timeout_s * (1 if self._loaded else LOADING)
        if silence_s > allowed_s * NOTICED:
            return Verdict(f"the engine has sent no heartbeat for {silence_s:.1f} s", silence_s > allowed_s)
        step_s = min(self._last.busy_s, now - self._advanced_at)
        quiet_s = min(self._last.quiet_s, step_s)
        if not self._loaded:
            if quiet_s > self._timeout_s:
                reason = f"loading has neither computed nor read anything for {quiet_s:.1f} s"
                return Verdict(reason, quiet_s > self._timeout_s * QUIET_STEP)
            return Verdict()
        if now > self._patient_until:
            self._patience = 1.0
        unknown = not self._longest_s
        least_s, most_s = self._timeout_s * QUIET_STEP, self._timeout_s * BUSY_STEP
        noticed_s, longer_s = self._timeout_s * NOTICED, self._longest_s * LONGER
        # Busy waiting for another device looks like work, but its first steps compile kernels.
        works = quiet_s <= noticed_s and (self._cpu_computes or unknown)
        if works and (unknown or self._last.unread_s <= noticed_s):
            noticed_s = allowed_s = max(most_s, longer_s)
        elif works:  # a processor takes as many times longer as there are more rows
            more_rows = max(1.0, self._last.rows / max(1, self._most_rows))
            noticed_s = max(noticed_s, longer_s, min(longer_s * more_rows, most_s))
            allowed_s = max(least_s, noticed_s, min(noticed_s * BUSY_LONGER, most_s))
        else:
            noticed_s = max(noticed_s, longer_s)
            allowed_s = max(most_s if self._waits_for_remote and unknown else least_s, longer_s)
        if step_s <= noticed_s:
            return Verdict()
        return Verdict(self._step_reason(step_s), step_s > allowed_s * self._patience)

    def on_killed(self) -> None:
        """A process that was hung has been killed."""
        if self.step_s > self._timeout_s:
            self._patience *= 2
            self._patient_until = self._clock() + PATIENCE_S

    def _step_reason(self, step_s: float) -> str:
        text = f"one step of the engine has taken {step_s:.1f} s so far"
        return f"{text}; the longest before took {self._longest_s:.1f} s" if self._longest_s else text
