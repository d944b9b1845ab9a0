"""Which responses are stored, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from server.api.openai.responses.store import BoundedStore, ResponseStore, StoredContent

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


def test_entry_larger_than_the_limit_is_not_stored(clock):
    store = ResponseStore(10, 10, 250, clock)
    assert store.fits(StoredContent(b"x" * 125, b"y" * 125, 0, ()))
    assert not store.fits(StoredContent(b"x" * 125, b"y" * 126, 0, ()))


def test_items_are_dropped_with_their_response(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one")
    clock.now = 10.0
    assert store.get("one", None) is store.item("one-item", None) is None
    assert store._holders == {}


def test_items_of_another_key_are_not_visible(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one", A)
    assert store.item("one-item", B) is None
    assert store.item("one-item", A) == {"id": "one-item"}
    store.remove(store.get("one", A))
    assert (len(store), store.size) == (0, 0)
    assert store.item("one-item", A) is None


def test_item_id_reused_by_another_key_hides_nothing(clock):
    store = ResponseStore(10, 10, 1000, clock)
    put(store, "one", A)
    put(store, "two", B, items=["one-item"])
    assert store.item("one-item", A) == {"id": "one-item"}


def test_store_of_size_zero_takes_nothing():
    assert not ResponseStore(0, 10, 1000).fits(StoredContent(b"", b"", 0, ()))


# --- what makes room in any store, and when


@dataclass(eq=False)
class Entry:
    id: str
    owner: bytes | None = None
    size: int = 100
    until: float = 0.0


class Store(BoundedStore[Entry]):
    def put(self, *entries: Entry):
        for entry in entries:
            self.size += entry.size
            self._renew(entry)
            self._expire()

    @property
    def ids(self) -> str:
        return "".join(id for id in "abc" if self.get(id, None))


def test_oldest_entries_make_room_for_new_ones(clock):
    store = Store(2, 10, 1000, clock)
    store.put(*map(Entry, "abc"))
    assert (store.ids, len(store), store.size) == ("bc", 2, 200)


def test_total_size_stays_within_the_limit(clock):
    store = Store(10, 10, 250, clock)
    store.put(*map(Entry, "ab"), Entry("c", size=150))
    assert (store.ids, store.size) == ("bc", 250)
    store.put(Entry("a", size=250))
    assert (store.ids, store.size) == ("a", 250)


def test_reading_an_entry_does_not_renew_it(clock):
    store = Store(10, 10, 1000, clock)
    store.put(Entry("a"))
    clock.now = 6.0
    store.put(Entry("b"))
    for clock.now, ids in ((9.9, "ab"), (10.0, "b"), (16.0, "")):
        assert store.ids == ids
    assert (len(store), store.size) == (0, 0)


def test_entry_is_visible_only_to_its_owner(clock):
    store = Store(10, 10, 1000, clock)
    entry = Entry("a", b"1")
    store.put(entry)
    assert store.get("a", b"1") is entry
    assert store.get("a", b"2") is store.get("a", None) is None
    store.remove(entry)
    assert store.get("a", b"1") is None
    assert store.size == 0
