"""Slots for recurrent states: who owns them, and which checkpoint gives way."""

from __future__ import annotations

import pytest

from engine.cache.state_slots import NO_SLOT, Checkpointed, StateSlots
from engine.errors import OutOfMemoryError


class Holder:
    def __init__(self) -> None:
        self.checkpoint = NO_SLOT


class Store:
    """One text for each slot."""

    def __init__(self, n: int) -> None:
        self.states = [""] * n

    def copy(self, source: int, target: int) -> None:
        self.states[target] = self.states[source]


def make(n_slots: int) -> tuple[StateSlots, Store]:
    store = Store(n_slots)
    return StateSlots(n_slots, store.copy, 512), store


def test_take_gives_each_sequence_a_slot_of_its_own_until_there_is_none() -> None:
    slots, _ = make(2)
    owned = [slots.take(), slots.take()]
    assert sorted(owned) == [0, 1]
    assert slots.n_available == 0
    with pytest.raises(OutOfMemoryError, match="all 2 slots"):
        slots.take()
    slots.free(owned[0])
    assert slots.take() == owned[0]


def test_take_from_a_checkpoint_copies_its_state() -> None:
    slots, store = make(3)
    first, holder = slots.take(), Holder()
    store.states[first] = "abc"
    slots.save(holder, first)
    store.states[first] = "abcd"  # the sequence goes on
    second = slots.take(holder)
    assert second not in (first, holder.checkpoint)
    assert store.states[second] == "abc"


def test_take_from_the_only_checkpoint_without_a_free_slot_moves_it() -> None:
    slots, store = make(2)
    first, holder = slots.take(), Holder()
    store.states[first] = "abc"
    slots.save(holder, first)
    second = slots.take(holder)
    assert (holder.checkpoint, store.states[second]) == (NO_SLOT, "abc")
    slots.check([first, second], [])


def test_save_without_an_available_slot_makes_no_checkpoint() -> None:
    slots, _ = make(1)
    holder = Holder()
    slots.save(holder, slots.take())
    assert holder.checkpoint == NO_SLOT


def test_keep_turns_the_slot_into_the_checkpoint_without_a_copy() -> None:
    slots, store = make(2)
    slot, holder = slots.take(), Holder()
    store.states[slot] = "abc"
    slots.keep(holder, slot)
    assert (holder.checkpoint, slots.n_available) == (slot, 2)
    again = slots.take()
    slots.keep(holder, again)  # it has one already
    assert holder.checkpoint == slot
    slots.check([], [holder])


def test_checkpoints_of_long_prompts_are_evicted_first_then_the_least_recently_used() -> None:
    slots, _ = make(6)
    owner = slots.take()
    old, used, passing, passing_used = (Holder() for _ in range(4))
    slots.save(old, owner)
    slots.save(used, owner)
    slots.save(passing_used, owner, passing=True)
    slots.save(passing, owner, passing=True)
    for holder in (used, passing_used):
        slots.free(slots.take(holder))
    order = []
    for _ in range(5):
        slots.take()
        evicted = {h for h in (old, used, passing, passing_used) if h.checkpoint == NO_SLOT}
        order.append(len(evicted) and next(h for h in evicted if h not in order))
    assert order == [0, passing, old, used, passing_used]


def test_drop_frees_the_checkpoint_of_a_node_that_was_removed() -> None:
    slots, _ = make(1)
    holder = Holder()
    slots.keep(holder, slots.take())
    slots.drop(holder)
    slots.drop(holder)
    assert (holder.checkpoint, slots.n_checkpoints, slots.n_available) == (NO_SLOT, 0, 1)


def test_check_detects_a_lost_slot_and_free_refuses_a_free_one() -> None:
    slots, _ = make(2)
    slot = slots.take()
    nobody: list[Checkpointed] = []
    with pytest.raises(AssertionError):
        slots.check([], nobody)
    slots.check([slot], nobody)
    slots.free(slot)
    with pytest.raises(AssertionError, match="freed twice"):
        slots.free(slot)
