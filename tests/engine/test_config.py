"""Parameters that are out of range for every model are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import MAX_CELLS, ModelParameters, check, n_shifted, shift_size
from engine.errors import ConfigError


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"context_size": 2, "kv_cells": 2, "max_batch_tokens": 1, "parallel": 1},
        {"context_size": MAX_CELLS, "kv_cells": MAX_CELLS, "max_batch_tokens": 1 << 20, "parallel": 1 << 16},
    ],
)
def test_check_of_the_ends_of_each_range_passes(params: dict[str, Any]) -> None:
    check(ModelParameters(**params))


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("context_size", 1, "2 to 1073741824"),
        ("context_size", MAX_CELLS + 1, "2 to 1073741824"),
        ("kv_cells", -1, "2 to 1073741824"),
        ("max_batch_tokens", 0, "1 to 1048576"),
        ("max_batch_tokens", (1 << 20) + 1, "1 to 1048576"),
        ("parallel", 0, "1 to 65536"),
        ("parallel", (1 << 16) + 1, "1 to 65536"),
    ],
)
def test_check_of_a_value_beyond_its_range_names_value_and_range(name: str, value: int, bounds: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is {value}; it must be {bounds}$"):
        check(ModelParameters(**{name: value}))


def test_check_of_an_unknown_kind_of_attention_lists_the_kinds() -> None:
    params: Any = {"flash_attn": "yes"}
    with pytest.raises(ConfigError, match="flash_attn is 'yes'; it must be auto, on or off"):
        check(ModelParameters(**params))


@given(st.integers(1, 400), st.integers(0, 80), st.integers(4, 60), st.integers(0, 80))
def test_shifts_of_a_context_add_up(n_tokens: int, n_keep: int, n_ctx: int, n_discard: int) -> None:
    """Against one shift after the other, each by llama-server's rule."""
    length = dropped = 0
    for _ in range(n_tokens):
        length += 1
        if length == n_ctx:  # n_ctx - 1 are computed, and this one is the next
            keep = min(n_ctx - 4, n_keep)
            n = min(n_discard, n_ctx - 1 - keep) or (n_ctx - 1 - keep) // 2
            length, dropped = length - n, dropped + n
    assert n_shifted(n_tokens, n_keep, n_ctx, n_discard) == dropped
    assert n_tokens - dropped < n_ctx


def test_shift_of_a_tiny_context_drops_at_least_one_token() -> None:
    assert shift_size(0, 2) == (0, 1)
    assert shift_size(5, 3) == (0, 1)
    assert n_shifted(2, 0, 2) == 1
