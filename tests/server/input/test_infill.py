"""Prompts with a gap: what fits, and what a vocabulary lacks."""

from __future__ import annotations

import pytest

from server.input.infill import Gap


@pytest.mark.parametrize(
    ("sizes", "room", "expected"),
    [
        ((5, 5, 5), 15, (5, 5, 5)),
        ((5, 5, 5), 12, (2, 5, 5)),
        ((5, 20, 20), 20, (0, 15, 5)),
        ((5, 4, 20), 20, (0, 4, 16)),
        ((5, 30, 2), 20, (0, 18, 2)),
        ((5, 3, 3), 0, (0, 0, 0)),
    ],
)
def test_the_suffix_keeps_its_beginning_and_the_prefix_its_end(sizes, room, expected):
    whole = Gap(*(list(range(n)) for n in sizes))
    part = whole.cut_to(room)
    assert tuple(map(len, part)) == expected
    assert part.prefix == whole.prefix[len(whole.prefix) - expected[1] :]
    assert part.suffix == whole.suffix[: expected[2]]
    assert part.extra == whole.extra[len(whole.extra) - expected[0] :]
