"""Which slot a request gets, and what a slot keeps."""

from __future__ import annotations

from itertools import count

from server.worker.requests.slots import Slots
from server.worker.requests.stream import Stream
from support.fakes.engine_client import request


def make_slots(n: int = 2) -> Slots:
    ticks = count(1)
    return Slots(n, lambda: float(next(ticks)))


def enter(slots: Slots, id: str, prompt: list[int], **fields) -> Stream:
    stream = Stream(None, request(id, prompt, 5, **fields))  # type: ignore[arg-type]
    slots.enter(stream, stream.request)
    return stream


def test_requested_slot_is_shared_with_the_request_running_there():
    slots = make_slots()
    first, second = enter(slots, "a", [1], slot=1), enter(slots, "b", [2], slot=1)
    assert (first.request.slot, second.request.slot) == (1, 1)
    slots.leave(first)
    assert slots[1].stream is second


def test_requested_slot_that_does_not_exist_is_ignored():
    slots = make_slots()
    assert enter(slots, "a", [1], slot=7).request.slot == 0


def test_the_longest_common_prefix_decides_among_free_slots():
    slots = make_slots(3)
    slots[0].keep([1, 2, 3, 4])
    slots[1].keep([1, 2, 9, 9])
    assert enter(slots, "a", [1, 2, 3, 5]).request.slot == 0
    assert enter(slots, "b", [1, 2, 9, 9]).request.slot == 1


def test_a_short_common_prefix_does_not_displace_a_sequence():
    slots = make_slots()
    slots[0].keep([1, *range(100, 120)])
    assert enter(slots, "a", [1, *range(200, 220)]).request.slot == 1  # never used


def test_request_without_a_common_prefix_takes_the_least_recently_used_slot():
    slots = make_slots()
    slots[0].keep([1])
    slots[1].keep([2])
    slots[0].keep([1])
    assert enter(slots, "a", [5]).request.slot == 1


def test_a_request_beyond_the_slots_waits_for_the_first_that_is_free():
    slots = make_slots()
    running = [enter(slots, "a", [1]), enter(slots, "b", [2])]
    waiting = enter(slots, "c", [3])
    assert waiting.request.slot is None
    slots.leave(running[1])
    assert (waiting.request.slot, slots[1].stream) == (1, waiting)
    assert list(slots[1].tokens) == [2]


def test_request_that_ends_while_waiting_is_kept_in_the_oldest_slot():
    slots = make_slots(1)
    enter(slots, "a", [1])
    waiting = enter(slots, "b", [2])
    slots.leave(waiting)
    assert (waiting.request.slot, list(slots[0].tokens)) == (0, [2])
    slots.leave(waiting)  # without effect
    assert slots[0].stream is not None


def test_prefix_of_another_salt_chooses_no_slot():
    slots = make_slots(3)
    slots[2].keep([1, 2, 3, 4], salt="theirs")
    assert enter(slots, "a", [1, 2, 3, 4]).request.slot == 0
