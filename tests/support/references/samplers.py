"""Samplers for rows of a few logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from engine.sampling.sampler import Sampler
from engine.types import InferenceParameters

NAN, INF = math.nan, math.inf


def row(*logits: float) -> np.ndarray:
    return np.array(logits, dtype=np.float32)


def logs(*probabilities: float) -> np.ndarray:
    return row(*(math.log(p) for p in probabilities))


def sampler(
    n_vocab: int,
    eog: Collection[int] = (),
    history: Sequence[int] = (),
    n_generated: int = 0,
    state: float | None = None,
    **params: Any,
) -> Sampler:
    params.setdefault("seed", 7)
    return Sampler(InferenceParameters(**params), n_vocab, eog, history, n_generated, state)


def greedy(logits: np.ndarray, mask: np.ndarray | None = None, **kw: Any) -> int:
    return sampler(len(logits), temperature=0.0, **kw).sample(logits, mask).id


def drawn(logits: np.ndarray, **kw: Any) -> set[int]:
    """Every token that 400 draws give: with no probability below 0.03, all that truncation left."""
    s = sampler(len(logits), **kw)
    return {s.sample(logits).id for _ in range(400)}
