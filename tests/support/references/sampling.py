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


def edited(logits: np.ndarray, p: InferenceParameters, eog: Collection[int], n: int) -> np.ndarray:
    """Bias and bans."""
    x = logits.astype(np.float64)
    for token, bias in p.logit_bias.items():
        x[token] += bias
    if p.ignore_eos or n < p.min_tokens:
        x[list(eog)] = -math.inf
    if n < p.min_tokens:
        x[list(p.stop_token_ids)] = -math.inf
    return x


def penalised(x: np.ndarray, p: InferenceParameters, history: Sequence[int]) -> np.ndarray:
    """In float32, as the sampler: else logits that rounding makes equal would not be so here."""
    x, window, f = x.astype(np.float32), last(history, p.repeat_last_n), np.float32
    for token, count in Counter(window).items():
        x[token] = x[token] / f(p.repeat_penalty) if x[token] > 0 else x[token] * f(p.repeat_penalty)
        x[token] -= f(count) * f(p.frequency_penalty) + f(p.presence_penalty)
    return x.astype(np.float64)


def last(history: Sequence[int], n: int) -> list[int]:
    window = list(history)
    return window if n < 0 else window[max(0, len(window) - n) :]


def dry(
    x: np.ndarray, p: InferenceParameters, history: Sequence[int], breakers: Sequence[Sequence[int]]
) -> np.ndarray:
    """By the definition: of each token, the longest text that it once followed and would follow again."""
    x, window = x.astype(np.float32), last(history, p.dry_penalty_last_n)
    limit = len(window)
    for start in range(len(window) - 1, -1, -1):  # of the last breaker, and the longest that begins there
        starting = [b for b in breakers if window[start : start + len(b)] == list(b)]
        if starting:
            limit = len(window) - (start + max(map(len, starting)))
            break
    repeats: dict[int, int] = {}
    for end in range(1, len(window)):  # window[end] once followed window[:end]
        m = 0
        while m < min(end, limit) and window[end - 1 - m] == window[-1 - m]:
            m += 1
        repeats[window[end]] = max(repeats.get(window[end], 0), m)
    if len(window) <= p.dry_allowed_length or limit < p.dry_allowed_length:
        return x
    for token, m in repeats.items():
        if m >= p.dry_allowed_length and [token] not in [list(b) for b in breakers]:
            x[token] -= np.float32(p.dry_multiplier * p.dry_base ** (m - p.dry_allowed_length))
    return x.astype(np.float64)


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


class Chain:
    """The steps of `samplers` in order. `nudge` moves every threshold a little, to find close calls."""

    def __init__(
        self, x: np.ndarray, p: InferenceParameters, nudge: float = 0.0, *, chance: float = 1.0
    ) -> None:
        self.x, self.p, self.f, self.chance = x.astype(np.float64), p, 1 + nudge, chance
        self.ids = [i for i in range(len(x)) if x[i] > -math.inf]  # most likely first, before each step

    def run(self, history: Sequence[int] = (), breakers: Sequence[Sequence[int]] = ()) -> Chain:
        for step in self.p.samplers:
            self.ids = ranked(self.x, self.ids)
            if step == "penalties":
                self.x = penalised(self.x, self.p, history)
            elif step == "dry" and self.p.dry_multiplier:
                self.x = dry(self.x, self.p, history, breakers)
            elif step not in ("dry", "adaptive_p"):
                getattr(self, step)()
        self.ids = sorted(self.ids)
        return self

    def weights(self) -> np.ndarray:
        w = np.zeros(len(self.x))
        w[self.ids] = softmax(self.x[self.ids])
        return w

    def keep(self, ids: list[int]) -> None:
        """These, or as many of the most likely as min_keep wants."""
        least = self.ids[: max(1, self.p.min_keep)]
        self.ids = ids if len(ids) >= len(least) else least

    def entropy(self) -> float:
        w = self.weights()
        return -sum(w[i] * math.log(w[i]) for i in self.ids if w[i] > 0)

    def top_n_sigma(self) -> None:
        if self.p.top_n_sigma > 0:
            x = self.x[self.ids]
            bound = x.max() - self.p.top_n_sigma * self.f * x.std()
            self.ids = [i for i in self.ids if self.x[i] >= bound]

    def top_k(self) -> None:
        if self.p.top_k > 0:
            self.ids = self.ids[: self.p.top_k]

    def tfs_z(self) -> None:
        if self.p.tfs_z < 1:
            self.ids = tail_free(self.ids, self.weights(), self.p.tfs_z * self.f)

    def typ_p(self) -> None:
        if self.p.typical_p < 1:
            w, entropy = self.weights(), self.entropy() * self.f
            score = {i: abs(-math.log(w[i]) - entropy) if w[i] > 0 else math.inf for i in self.ids}
            order = sorted(self.ids, key=lambda i: (score[i], i))
            ids = reach(order, w, self.p.typical_p * self.f)
            self.ids = ids if len(ids) >= self.p.min_keep else order[: self.p.min_keep]

    def top_p(self) -> None:
        if self.p.top_p < 1:
            self.keep(reach(self.ids, self.weights(), self.p.top_p * self.f))

    def min_p(self) -> None:
        if self.p.min_p > 0:
            w, bound = self.weights(), self.p.min_p * self.f
            self.keep([i for i in self.ids if w[i] >= bound * w[self.ids[0]]])

    def top_a(self) -> None:
        if self.p.top_a > 0:
            w, bound = self.weights(), self.p.top_a * self.f
            self.ids = [i for i in self.ids if w[i] >= bound * w[self.ids[0]] ** 2 or i == self.ids[0]]

    def xtc(self) -> None:
        if self.chance < self.p.xtc_probability and self.p.xtc_threshold <= 0.5:
            w = self.weights()
            above = [i for i in self.ids if w[i] >= self.p.xtc_threshold * self.f]
            left = self.ids[max(0, len(above) - 1) :]
            if len(left) >= self.p.min_keep:
                self.ids = left

    def temperature(self) -> None:
        t, r = self.p.temperature, self.p.dynatemp_range
        if r > 0 and len(self.ids) > 1:
            evenness = max(0.0, self.entropy() / math.log(len(self.ids)))
            low = max(0.0, t - r)
            t = low + (t + r - low) * evenness**self.p.dynatemp_exponent
        if t < 1e-5:
            self.ids = self.ids[:1]
        elif r == 0 or len(self.ids) > 1:
            self.x = self.x / t


def adapted(probabilities: np.ndarray, target: float, average: float) -> np.ndarray:
    """The logits that adaptive-p draws from."""
    distance = np.abs(probabilities - min(max(2 * target - average, 0), 1)) / 0.3
    return 5 - 10 * distance**2 / (1 + distance)


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
