"""Decisions after crashes: restart, give up one request, or give up the engine. No process, no time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.types import Request
from server.worker.requests.recovery import FIRST_DELAY_S, MAX_CRASHES, WINDOW_S, Recovery


@dataclass
class Item:
    """What recovery looks at in a stream or pending task."""

    sent: bool = True
    crashes: int = 0
    has_progress: bool = False
    client: str = ""
    priority: int = 0

    @property
    def request(self) -> Request:
        return Request(id="r", prompt=[1], client=self.client, priority=self.priority)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recovery(clock):
    return Recovery(parallel=2, clock=clock)


def test_delays_double_until_too_many_crashes_give_up_the_engine(recovery):
    decisions = [recovery.on_crash([]) for _ in range(MAX_CRASHES + 1)]
    assert [d.delay_s for d in decisions] == [0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert [d.give_up for d in decisions] == [False, False, False, True]


def test_crashes_outside_the_window_do_not_count(recovery, clock):
    for _ in range(10):
        decision = recovery.on_crash([])
        assert (decision.give_up, decision.delay_s) == (False, 0.0)
        clock.now += WINDOW_S


def test_crash_counts_only_for_requests_that_may_have_been_running(recovery):
    streams = [Item(), Item(sent=False), Item(), Item()]
    tasks = [Item(), Item(sent=False)]
    recovery.on_crash(streams, tasks)
    assert [item.crashes for item in streams] == [1, 0, 1, 0]
    assert [item.crashes for item in tasks] == [1, 0]


def test_crash_counts_for_as_many_requests_of_a_client_as_fit(recovery):
    streams = [Item(client="a"), Item(client="a", priority=1), Item(client="a"), Item(client="b")]
    recovery.on_crash(streams)
    assert [item.crashes for item in streams] == [1, 0, 1, 1]


def test_crash_counts_for_begun_requests_first(recovery):
    streams = [Item(), Item(priority=-1), Item(has_progress=True, priority=5)]
    recovery.on_crash(streams)
    assert [item.crashes for item in streams] == [0, 1, 1]


def test_a_single_suspect_is_given_up_and_explains_the_crashes(recovery):
    stream = Item()
    assert recovery.on_crash([stream]).culprit is None
    decision = recovery.on_crash([stream])
    assert (decision.culprit, decision.delay_s) == (stream, 0.0)


def test_several_suspects_are_retried_one_at_a_time():
    suspects, other = [Item(False, 2), Item(False, 2)], Item(False, 0)
    assert Recovery.sendable([other, *suspects]) == suspects[:1]
    suspects[0].sent = True
    assert Recovery.sendable([other, *suspects]) == []
    suspects[0].crashes = suspects[1].crashes = 0
    assert Recovery.sendable([other, *suspects]) == [other, suspects[1]]
