"""The states of recurrent layers: one row for each slot, in the host's memory.

Our kernels compute recurrent layers on the CPU, wherever their matrices are. `engine.cache.state_slots` knows
who owns which slot.
"""

from __future__ import annotations

from typing import Any

from engine.ggml.tensor import F32, Storage
from engine.hparams import HParams


class StateCache:
    """table: F32 [elements of all layers, n_slots]; layer i begins at element `offsets[i]`.

    A new sequence treats its slot as if it held zeros, so nothing needs clearing.
    """

    def __init__(self, hp: HParams, n_slots: int, buffer_type: Any) -> None:
        sizes = [hp.state_size(i) for i in range(hp.n_layer)]
        self.n_slots = n_slots
        self.offsets = [sum(sizes[:i]) for i in range(hp.n_layer)]
        ctx: Any = Storage(1)
        self.table = ctx.new(F32, (sum(sizes), n_slots), "cache.states")
        self.buffer = ctx.allocate(buffer_type)

    @property
    def nbytes(self) -> int:
        """Bytes of one slot."""
        return int(self.table.strides[1])

    def copy(self, source: int, target: int) -> None:
        """Copy the state of one slot into another."""
        self.table.move(source * self.nbytes, target * self.nbytes, self.nbytes)

    def read(self, slot: int) -> bytearray:
        state: bytearray = self.table.get(slot * self.nbytes, self.nbytes)
        return state

    def write(self, slot: int, state: memoryview) -> None:
        """Copy `nbytes` bytes into a slot."""
        if len(state) != self.nbytes:
            raise ValueError(f"{len(state)} bytes for a state of {self.nbytes}")
        self.table.set(state, slot * self.nbytes)

    def close(self) -> None:
        self.buffer.close()
