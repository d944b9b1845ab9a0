"""Prompts with a gap: what fits, and what a vocabulary lacks."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from server.errors import ApiError
from server.input.infill import ExtraFile, Gap, gap, missing, require
from support.fakes.engine import FakeEngine, ids, tokenizer


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


def vocabulary(**marks: int | None) -> Any:
    changed = copy.copy(tokenizer())
    for name, value in marks.items():
        setattr(changed, f"fim_{name}_id", value)
    return changed


def test_vocabulary_without_infill_tokens_is_refused_by_model_or_field() -> None:
    engine: Any = FakeEngine()
    engine.tokenizer = vocabulary(pre=1, suf=None, mid=None)
    assert missing(engine.tokenizer) == ["suffix", "middle"]
    with pytest.raises(ApiError, match="has no token for suffix, middle") as raised:
        require(engine)
    assert (raised.value.status_code, raised.value.code) == (501, "not_supported")
    with pytest.raises(ApiError) as raised:
        require(engine, "suffix")
    assert (raised.value.status_code, raised.value.param) == (400, "suffix")
    engine.tokenizer = vocabulary(pre=1, suf=2, mid=3)
    require(engine)


def test_extra_files_are_marked_with_the_tokens_the_vocabulary_has() -> None:
    files = [ExtraFile("a cat", "cat.py"), ExtraFile("a dog")]
    plain = gap(vocabulary(rep=None, sep=None), "x", "y", files)
    between = ids("\n\n--- snippet ---\n\n")
    assert plain.extra == between + ids("a cat") + between + ids("a dog")
    marked = gap(vocabulary(rep=9, sep=8), "x", "y", files).extra
    assert marked[0] == 9
    assert marked.count(8) == 3  # each file, and the one with the gap
    assert gap(vocabulary(rep=9, sep=8), "x", "y").extra == []
