"""Reads the rows of `prompt_logprobs`. The server uses it without importing more of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.types import Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def tokens_with_logprobs(ids: Sequence[int], rows: NDArray[np.float64]) -> list[Token]:
    """All tokens of a prompt except the first, from their rows, as if they had been generated."""
    return [
        Token(id, row[0], [(int(i), p) for i, p in zip(row[2::2], row[3::2], strict=True)])
        for id, row in zip(ids[1:], rows.tolist(), strict=True)
    ]


def token_ranks(rows: NDArray[np.float64]) -> list[int]:
    """The ranks of these tokens in the vocabulary."""
    return [int(rank) for rank in rows[:, 1]]
