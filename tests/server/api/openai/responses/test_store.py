"""Which responses are stored, and for how long."""

from __future__ import annotations

import pytest

from server.api.openai.responses.store import ResponseStore, StoredContent

A, B = b"a", b"b"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def put(store, id, owner=None, size=100, items=()):
    conversation = b'[{"id":"' + id.encode() + b'-item"}]'
    response = b"x" * (size - len(conversation))
    store.put(id, owner, StoredContent(response, conversation, 0, (f"{id}-item", *items)))


def test_the_oldest_make_room(clock):
    store = ResponseStore(2, 10, 1000, clock)
    for id in ("one", "two", "three"):
        put(store, id)
    assert [store.get(id, None) is not None for id in ("one", "two", "three")] == [False, True, True]
    assert (len(store), store.size) == (2, 200)


def test_all_together_are_no_larger_than_that(clock):
    store = ResponseStore(10, 10, 250, clock)
    for id in ("one", "two", "three"):
        put(store, id)
    assert store.get("one", None) is None
    assert store.size == 200
    assert store.fits(StoredContent(b"x" * 125, b"y" * 125, 0, ()))
    assert not store.fits(StoredContent(b"x" * 125, b"y" * 126, 0, ()))
    put(store, "four", size=250)
    assert (len(store), store.size) == (1, 250)


def test_time_passes(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one")
    clock.now = 6.0
    put(store, "two")
    clock.now = 9.9
    assert store.get("one", None) is not None  # and looking at it does not make it younger
    clock.now = 10.0
    assert store.get("one", None) is None
    assert store.get("two", None) is not None
    clock.now = 16.0
    assert store.get("two", None) is None
    assert (len(store), store.size) == (0, 0)
    assert store._holders == {}


def test_nobody_sees_what_another_key_created(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one", A)
    assert store.get("one", B) is None
    assert store.get("one", None) is None
    assert store.item("one-item", B) is None
    assert not store.remove("one", B)
    assert store.item("one-item", A) == {"id": "one-item"}
    assert store.remove("one", A)
    assert (len(store), store.size) == (0, 0)
    assert store.item("one-item", A) is None


def test_an_item_id_that_another_key_chose_again_hides_nothing(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one", A)
    put(store, "two", B, items=["one-item"])
    assert store.item("one-item", A) == {"id": "one-item"}


def test_a_store_of_none_takes_nothing():
    assert not ResponseStore(0, 10, 1000).fits(StoredContent(b"", b"", 0, ()))
