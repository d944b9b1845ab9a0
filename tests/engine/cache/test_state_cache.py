"""The memory of recurrent states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.cache.state_cache import StateCache
from engine.ggml.backend import devices
from engine.hparams import Recurrence
from support.builders.hparams import hparams

HP = replace(
    hparams(3),
    recurrence=Recurrence(kernel=4, channels=8, n_head=2, head_dim=3, d_state=5),
    recurrent=(True, False, True),
)
SIZE = 3 * 8 + 2 * 3 * 5


def cache() -> StateCache:
    cpu = next(d for d in devices() if d.type == "cpu")
    return StateCache(HP, 4, cpu.buffer_types()[-1])


def test_layers_without_a_state_take_no_memory() -> None:
    states = cache()
    assert [HP.state_size(i) for i in range(3)] == [SIZE, 0, SIZE]
    assert states.offsets == [0, SIZE, SIZE]
    assert states.nbytes == HP.state_bytes == 4 * 2 * SIZE
    assert states.table.shape[:2] == (2 * SIZE, 4)


def test_copy_changes_the_target_alone() -> None:
    states = cache()
    rows = np.arange(4 * 2 * SIZE, dtype=np.float32).reshape(4, -1)
    for slot, row in enumerate(rows):
        states.write(slot, memoryview(row.tobytes()))
    states.copy(1, 3)
    content = [np.frombuffer(states.read(slot), np.float32) for slot in range(4)]
    assert all((content[slot] == rows[slot]).all() for slot in range(3))
    assert (content[3] == rows[1]).all()


def test_write_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="8 bytes for a state of"):
        cache().write(0, memoryview(bytes(8)))
