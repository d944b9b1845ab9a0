"""All sequences of a scheduler: by id, by state in order of precedence, and by deadline."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from operator import attrgetter

from engine.scheduler.fair_share import FairShare
from engine.scheduler.sequence import ScheduledSequence, SequenceState

_precedence = attrgetter("precedence")


class SequenceQueues:
    """Only this class sets `ScheduledSequence.state`, and it informs `fair`."""

    def __init__(self) -> None:
        self.fair = FairShare()
        self._by_id: dict[str, ScheduledSequence] = {}
        self._by_state: dict[SequenceState, list[ScheduledSequence]] = {
            state: [] for state in SequenceState if state is not SequenceState.FINISHED
        }
        self.compiling = self._by_state[SequenceState.COMPILING]
        self.waiting = self._by_state[SequenceState.WAITING]
        self.running = self._by_state[SequenceState.RUNNING]
        self.paused = self._by_state[SequenceState.PAUSED]
        self._deadlines: list[tuple[float, int, ScheduledSequence]] = []  # a heap

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def __iter__(self) -> Iterator[ScheduledSequence]:
        """All sequences, even if some are removed during iteration."""
        return iter(list(self._by_id.values()))

    def get(self, id: str) -> ScheduledSequence | None:
        return self._by_id.get(id)

    def add(self, sequence: ScheduledSequence) -> None:
        """Add a new sequence, in its state."""
        self._by_id[sequence.id] = sequence
        self.fair.add(sequence)
        insort(self._by_state[sequence.state], sequence, key=_precedence)
        if sequence.state is SequenceState.WAITING:
            self.fair.enter(sequence)
        if sequence.request.deadline_ms is not None:
            heappush(self._deadlines, (sequence.request.deadline_ms, sequence.arrival, sequence))

    def move(self, sequence: ScheduledSequence, state: SequenceState) -> None:
        """Change a sequence's state. It is placed by precedence among those in that state."""
        self._take(sequence)
        sequence.state = state
        insort(self._by_state[state], sequence, key=_precedence)
        if state is SequenceState.WAITING:
            self.fair.enter(sequence)
        elif state is SequenceState.RUNNING:
            self.fair.admit(sequence)

    def remove(self, sequence: ScheduledSequence) -> None:
        """The sequence is finished."""
        self._take(sequence)
        self.fair.finish(sequence)
        sequence.state = SequenceState.FINISHED
        del self._by_id[sequence.id]
        if len(self._deadlines) > 2 * len(self._by_id) + 64:  # most of them are of finished sequences
            self._deadlines = [
                entry for entry in self._deadlines if entry[2].state is not SequenceState.FINISHED
            ]
            heapify(self._deadlines)

    def _take(self, sequence: ScheduledSequence) -> None:
        self._by_state[sequence.state].remove(sequence)
        if sequence.state is SequenceState.WAITING:
            self.fair.leave(sequence)

    @property
    def next_deadline_ms(self) -> float | None:
        """The earliest deadline, in ms of time.monotonic."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].state is SequenceState.FINISHED:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expired(self, now_ms: float) -> list[ScheduledSequence]:
        """Sequences whose deadline has passed, the earliest deadline first."""
        expired = []
        while (deadline := self.next_deadline_ms) is not None and deadline <= now_ms:
            expired.append(heappop(self._deadlines)[2])
        return expired
