"""The sampling chain once more, from the papers' formulas: slow, float64, sorting everything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from engine.types import InferenceParameters

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


def splitmix(z: int) -> int:
    """The next output of SplitMix64 in state z (Steele, Lea, Flood 2014, figure 15)."""
    z = (z + GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed: int, index: int) -> float:
    return (splitmix((splitmix(seed) + index * GOLDEN) & MASK) >> 11) / 2**53


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x - x.max() - math.log(np.exp(x - x.max()).sum())


def edited(
    logits: np.ndarray, p: InferenceParameters, history: Sequence[int], eog: Collection[int], n: int
) -> np.ndarray:
    """Bias, penalties and bans."""
    x = logits.astype(np.float64)
    for token, bias in p.logit_bias.items():
        x[token] += bias
    window = list(history)
    if p.repeat_last_n >= 0:
        window = window[max(0, len(window) - p.repeat_last_n) :]
    for token, count in Counter(window).items():
        x[token] = x[token] / p.repeat_penalty if x[token] > 0 else x[token] * p.repeat_penalty
        x[token] -= count * p.frequency_penalty + p.presence_penalty
    if p.ignore_eos or n < p.min_tokens:
        x[list(eog)] = -math.inf
    if n < p.min_tokens:
        x[list(p.stop_token_ids)] = -math.inf
    return x


def ranked(x: np.ndarray, ids: list[int]) -> list[int]:
    return [ids[i] for i in np.lexsort((ids, -x[ids]))]


def reach(ids: list[int], weights: np.ndarray, target: float) -> list[int]:
    """The shortest prefix of ids whose weights reach target."""
    total = 0.0
    for n, token in enumerate(ids):
        total += weights[token]
        if total >= target:
            return ids[: n + 1]
    return ids


def tail_free(ids: list[int], w: np.ndarray, z: float) -> list[int]:
    if len(ids) <= 2:
        return ids
    bend = np.abs(np.diff(w[ids], 2))
    total = bend.sum()
    bend = bend / total if total > 1e-6 else np.full(len(bend), 1 / len(bend))
    over = [i for i, c in enumerate(np.cumsum(bend)) if c > z and i > 0]
    return ids[: over[0]] if over else ids


def candidates(x: np.ndarray, p: InferenceParameters, nudge: float = 0.0) -> list[int]:
    """What the truncation steps leave. `nudge` moves every threshold a little, to find close calls."""
    f = 1 + nudge
    ids = ranked(x, [i for i in range(len(x)) if x[i] > -math.inf])

    def weights() -> np.ndarray:
        w = np.zeros(len(x))
        w[ids] = softmax(x[ids])
        return w

    if p.top_k > 0:
        ids = ids[: p.top_k]
    if p.tfs_z < 1:
        ids = tail_free(ids, weights(), p.tfs_z * f)
    if p.typical_p < 1:
        w = weights()
        entropy = -sum(w[i] * math.log(w[i]) for i in ids if w[i] > 0) * f
        score = {i: abs(-math.log(w[i]) - entropy) if w[i] > 0 else math.inf for i in ids}
        ids = reach(sorted(ids, key=lambda i: (score[i], i)), w, p.typical_p * f)
        ids = ranked(x, ids)
    if p.top_p < 1:
        ids = reach(ids, weights(), p.top_p * f)
    if p.min_p > 0:
        w = weights()
        ids = [i for i in ids if w[i] >= p.min_p * f * w[ids[0]] or i == ids[0]]
    if p.top_a > 0:
        w = weights()
        ids = [i for i in ids if w[i] >= p.top_a * f * w[ids[0]] ** 2 or i == ids[0]]
    return sorted(ids)


def mirostat(x: np.ndarray, p: InferenceParameters, mu: float) -> list[int]:
    """Candidates of the paper's algorithms 1 and 2, x already divided by the temperature."""
    ids = ranked(x, [i for i in range(len(x)) if x[i] > -math.inf])
    w = np.zeros(len(x))
    w[ids] = softmax(x[ids])
    if p.mirostat == 2:
        return sorted(i for i in ids if -math.log2(w[i]) <= mu or i == ids[0])
    head = ids[:100]
    t = np.log([(i + 2) / (i + 1) for i in range(len(head) - 1)])
    b = np.log([w[head[i]] / w[head[i + 1]] for i in range(len(head) - 1)])
    s = (t @ b) / (t @ t)
    eps = s - 1
    k = ((eps * 2**mu) / (1 - len(x) ** -eps)) ** (1 / s)
    return sorted(ids[: max(1, int(min(k, len(ids))))])


def draw(x: np.ndarray, ids: list[int], u: float) -> int:
    """The token at which the summed probabilities, in id order, pass u."""
    return ids[min(int(np.searchsorted(np.cumsum(softmax(x[ids])), u, side="right")), len(ids) - 1)]
