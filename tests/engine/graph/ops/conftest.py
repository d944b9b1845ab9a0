"""Every test of an operation runs with each kernel set that this processor has; in a quick run with two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.graph.ops.packed import instruction_set, instruction_sets, use_instruction_set
from support.quick import matrix

SETS = matrix(instruction_sets(), always=lambda name: name in (instruction_set(), "portable"))


@pytest.fixture(params=SETS, autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernel set in force, each in turn."""
    before = instruction_set()
    use_instruction_set(request.param)
    yield request.param
    use_instruction_set(before)
