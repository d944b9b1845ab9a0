"""Where sequences stand: by id, by state in order of arrival, by deadline."""

from __future__ import annotations

from engine.cache.cell_pool import CellPool
from engine.config import SchedulerConfig
from engine.scheduler.queues import SequenceQueues
from engine.scheduler.sequence import ScheduledSequence, SequenceState
from engine.types import Request

CONFIG = SchedulerConfig()


def sequence(arrival: int, deadline_ms: float | None = None) -> ScheduledSequence:
    request = Request(id=f"r{arrival}", prompt=[1, 2, 3], deadline_ms=deadline_ms)
    return ScheduledSequence(request, CellPool(8), None, CONFIG, arrival=arrival, now=0.0)


def filled(*sequences: ScheduledSequence) -> SequenceQueues:
    queues = SequenceQueues()
    for one in sequences:
        queues.add(one)
    return queues


def test_move_out_of_order_keeps_the_order_of_arrival() -> None:
    first, second, third = (sequence(n) for n in (1, 2, 3))
    queues = filled(first, second, third)
    for one in (third, first, second):
        queues.move(one, SequenceState.RUNNING)
    assert queues.running == [first, second, third]
    assert queues.waiting == []
    queues.move(first, SequenceState.PAUSED)
    queues.move(first, SequenceState.RUNNING)
    assert queues.running == [first, second, third]


def test_remove_finishes_and_forgets() -> None:
    one, other = sequence(1), sequence(2)
    queues = filled(one, other)
    queues.remove(one)
    assert one.state is SequenceState.FINISHED
    assert (queues.get("r1"), "r1" in queues) == (None, False)
    assert list(queues) == queues.waiting == [other]


def test_iterating_allows_removing() -> None:
    queues = filled(*(sequence(n) for n in range(5)))
    for one in queues:
        queues.remove(one)
    assert list(queues) == []


def test_expired_gives_the_earliest_deadline_first_and_once() -> None:
    late, early, never = sequence(1, 20.0), sequence(2, 10.0), sequence(3)
    queues = filled(late, early, never)
    assert queues.next_deadline_ms == 10.0
    assert queues.expired(9.9) == []
    assert queues.expired(25.0) == [early, late]
    assert queues.expired(25.0) == []
    assert queues.next_deadline_ms is None


def test_deadlines_of_finished_sequences_do_not_count() -> None:
    finished, other = sequence(1, 10.0), sequence(2, 20.0)
    queues = filled(finished, other)
    queues.remove(finished)
    assert queues.next_deadline_ms == 20.0
    assert queues.expired(15.0) == []
