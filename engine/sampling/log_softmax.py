"""Log-probabilities from rows of logits, for tokens that are not sampled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LOGITS_BYTES = 64 << 20  # rows of logits to ask for at a time: 262144 tokens of vocabulary take 1 MiB each


def max_rows(n_vocab: int) -> int:
    """How many rows of float32 [n_vocab] `LOGITS_BYTES` holds; at least one."""
    return max(1, LOGITS_BYTES // (4 * n_vocab))


def log_sum_exp(logits: NDArray[np.float32]) -> float:
    """log of the sum of e^logits. NaN or infinite if the logits are not finite."""
    highest = float(np.max(logits))
    # A sum of many small terms: float32 would lose some of them.
    with np.errstate(invalid="ignore"):
        terms = np.exp(logits - np.float32(highest))
    return highest + math.log(float(terms.sum(dtype=np.float64)))
