"""The bounds of stored conversations."""

from __future__ import annotations

import pytest

from server.api.openai.conversations.store import ConversationStore, StoredConversation


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def item(id, n=0):
    return {"id": id, "text": "x" * n}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return ConversationStore(3, 100.0, 1000, clock)


def put(store, id, items=(), metadata=None):
    conversation = StoredConversation(id, None, 0, metadata or {})
    assert store.update(conversation, items)
    return conversation


def test_conversations_beyond_the_limit_drop_the_least_recently_used(store):
    for id in "abc":
        put(store, id)
    store.get("a", None)
    put(store, "d")
    assert [id for id in "abcd" if store.get(id, None)] == ["a", "c", "d"]


def test_used_conversation_expires_later(store, clock):
    put(store, "a")
    put(store, "b")
    clock.now = 60
    assert store.get("a", None)
    clock.now = 120
    assert store.get("b", None) is None
    assert store.get("a", None)
    clock.now = 220
    assert store.get("a", None) is None
    assert store.size == len(store) == 0


def test_bytes_over_the_limit_drop_others_but_too_large_changes_nothing(store):
    put(store, "a", [item("1", 500)])
    b = put(store, "b", [item("1", 400)])
    assert store.update(b, [item("2", 300)])
    assert store.get("a", None) is None
    before = store.size
    assert not store.update(b, [item("3", 300)])
    assert (list(b.entries), store.size) == (["1", "2"], before)
    assert not store.update(b, metadata={"k": "v" * 900})
    assert b.metadata == {}


def test_size_equals_the_sum_after_every_change(store):
    a = put(store, "a", [item("1", 10), item("2", 20)], metadata={"k": "v"})
    b = put(store, "b")
    store.update(b, [item("1", 5)])
    store.update(a, [item("1", 50)])  # in place of the one of that id
    assert list(a.entries) == ["1", "2"]
    store.update(a, metadata={"longer": "text"})
    store.remove_item(a, "2")
    assert store.size == a.size + b.size
    store.remove(a)
    assert (store.size, store.holds(a), store.holds(b)) == (b.size, False, True)


def test_store_of_size_zero_takes_nothing():
    store = ConversationStore(0, 100.0, 1000)
    assert not store.update(StoredConversation("a", None, 0, {}))
    assert len(store) == 0
