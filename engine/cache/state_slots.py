"""Slots for the states of recurrent layers: which are free and which are checkpoints.

A running sequence owns a slot, with the state after its last computed token. A state cannot go back, so nodes
of the prefix cache keep copies of it, called checkpoints, each in its own slot. Slots that no sequence owns
belong to checkpoints; when a slot is needed, a checkpoint is evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.cache.checkpoints import Checkpoints
from engine.errors import OutOfMemoryError

NO_SLOT = -1


class Checkpointed(Protocol):
    """An object that can hold a checkpoint: a node of the prefix cache."""

    checkpoint: int  # its slot, or NO_SLOT


class StateSlots:
    """Allocates slots and evicts checkpoints.

    copy: copies the state of one slot (source, target) into another. interval: tokens of a long prompt after
    which a checkpoint is made.
    """

    def __init__(self, n_slots: int, copy: Callable[[int, int], None], interval: int) -> None:
        self.n_slots, self.interval = n_slots, interval
        self._copy = copy
        self._free = list(range(n_slots - 1, -1, -1))
        self._checkpoints: Checkpoints[Checkpointed, int] = Checkpoints()  # slots by node

    @property
    def n_checkpoints(self) -> int:
        return len(self._checkpoints)

    @property
    def n_available(self) -> int:
        """Slots that a sequence can get: free ones and those of checkpoints."""
        return len(self._free) + self.n_checkpoints

    def take(self, source: Checkpointed | None = None) -> int:
        """A slot for a sequence: with the state of a checkpoint, or with any state for one that begins.

        OutOfMemoryError if sequences own all slots.
        """
        if source is not None:
            self._checkpoints.use(source)
        slot = self._free_one(source)
        if slot == NO_SLOT:
            if source is None or source.checkpoint == NO_SLOT:
                raise OutOfMemoryError(
                    f"all {self.n_slots} slots for recurrent states are in use; close other sessions of this "
                    "model or raise --checkpoints"
                )
            slot = source.checkpoint  # the last one: it becomes the sequence's own
            self._forget(source)
        elif source is not None:
            self._copy(source.checkpoint, slot)
        return slot

    def free(self, slot: int) -> None:
        """Return a sequence's slot."""
        if slot in self._free:
            raise AssertionError(f"slot {slot} is freed twice")
        self._free.append(slot)

    def save(self, holder: Checkpointed, slot: int, *, passing: bool = False) -> None:
        """Make a checkpoint of the state in `slot`, unless sequences own all other slots.

        passing: on the way through a prompt, so that nothing is lost if it is evicted early.
        """
        if holder.checkpoint != NO_SLOT:
            return
        target = self._free_one(None)
        if target != NO_SLOT:
            self._copy(slot, target)
            holder.checkpoint = target
            self._checkpoints.add(holder, target, passing=passing)

    def keep(self, holder: Checkpointed, slot: int) -> None:
        """Turn a sequence's slot into a checkpoint."""
        if holder.checkpoint != NO_SLOT:
            self._checkpoints.use(holder)
            self.free(slot)
        else:
            holder.checkpoint = slot
            self._checkpoints.add(holder, slot)

    def drop(self, holder: Checkpointed) -> None:
        """Free the checkpoint of a node that is being removed, if it has one."""
        if holder.checkpoint != NO_SLOT:
            slot = holder.checkpoint
            self._forget(holder)
            self._free.append(slot)

    def check(self, slots: list[int], holders: list[Checkpointed]) -> None:
        """Raises AssertionError unless each slot is free, one of `slots`, or a checkpoint of `holders`."""
        checkpoints = dict(self._checkpoints.items())
        assert checkpoints == {holder: holder.checkpoint for holder in holders}
        assert sorted([*self._free, *slots, *checkpoints.values()]) == list(range(self.n_slots))

    def _free_one(self, source: Checkpointed | None) -> int:
        """A free slot, if necessary by evicting a checkpoint other than `source`; NO_SLOT: there is none."""
        if not self._free:
            oldest = next((h for h, _ in self._checkpoints.items() if h is not source), None)
            if oldest is None:
                return NO_SLOT
            self.drop(oldest)
        return self._free.pop()

    def _forget(self, holder: Checkpointed) -> None:
        self._checkpoints.pop(holder)
        holder.checkpoint = NO_SLOT
