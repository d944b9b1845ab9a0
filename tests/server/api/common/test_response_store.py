"""What is kept of responses, and for how long."""

from __future__ import annotations

import pytest

from server.api.common.response_store import ResponseStore

A, B = b"a", b"b"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def put(kept, id, owner=None, size=100, items=()):
    conversation = b'[{"id":"' + id.encode() + b'-item"}]'
    kept.put(id, owner, b"x" * (size - len(conversation)), conversation, 0, [f"{id}-item", *items])


def test_the_oldest_make_room(clock):
    kept = ResponseStore(2, 10, 1000, clock)
    for id in ("one", "two", "three"):
        put(kept, id)
    assert [kept.get(id, None) is not None for id in ("one", "two", "three")] == [False, True, True]
    assert (len(kept), kept.size) == (2, 200)


def test_all_together_are_no_larger_than_that(clock):
    kept = ResponseStore(10, 10, 250, clock)
    for id in ("one", "two", "three"):
        put(kept, id)
    assert kept.get("one", None) is None
    assert kept.size == 200
    assert kept.fits(b"x" * 125, b"y" * 125)
    assert not kept.fits(b"x" * 125, b"y" * 126)
    put(kept, "four", size=250)
    assert (len(kept), kept.size) == (1, 250)


def test_time_passes(clock):
    kept = ResponseStore(10, 10, 1000, clock)
    put(kept, "one")
    clock.now = 6.0
    put(kept, "two")
    clock.now = 9.9
    assert kept.get("one", None) is not None  # and looking at it does not make it younger
    clock.now = 10.0
    assert kept.get("one", None) is None
    assert kept.get("two", None) is not None
    clock.now = 16.0
    assert kept.get("two", None) is None
    assert (len(kept), kept.size) == (0, 0)
    assert kept._holders == {}


def test_nobody_sees_what_another_key_made(clock):
    kept = ResponseStore(10, 10, 1000, clock)
    put(kept, "one", A)
    assert kept.get("one", B) is None
    assert kept.get("one", None) is None
    assert kept.item("one-item", B) is None
    assert not kept.remove("one", B)
    assert kept.item("one-item", A) == {"id": "one-item"}
    assert kept.remove("one", A)
    assert (len(kept), kept.size) == (0, 0)
    assert kept.item("one-item", A) is None


def test_an_item_id_that_another_key_chose_again_hides_nothing(clock):
    kept = ResponseStore(10, 10, 1000, clock)
    put(kept, "one", A)
    put(kept, "two", B, items=["one-item"])
    assert kept.item("one-item", A) == {"id": "one-item"}


def test_nothing_is_kept_of_none():
    assert not ResponseStore(0, 10, 1000).fits(b"", b"")
