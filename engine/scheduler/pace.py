"""How many prompt tokens a step computes while streams are decoding, by measured time.

A chunk of a prompt delays every running stream. A fixed number of tokens takes an instant on one machine and
seconds on another, so the chunk is bounded by the time that a step without it takes.
"""

from __future__ import annotations

STRETCH = 2.4  # a step with a chunk takes about this many times as long as one without
SMALLEST_CHUNK = 8  # attention over a long context costs nearly as much for fewer, and prompts must go on
LARGEST_CHUNK = 1 << 20  # any bound: where tokens cost nothing measurable, there would be none
MULTIPLE = 4  # of chunks: steps of one size share a graph, and the limit drifts
REFRESH = 64  # steps with a chunk, after which one is computed without, since contexts grow
WEIGHT = 0.25  # of a new measurement in the running mean
FEWEST_ROWS = 32  # a shorter chunk says little about the time per token


class PrefillPace:
    """Bounds chunks so that streams are not delayed by more than a step of their own.

    Without a measurement of both kinds of steps there is no bound.
    """

    __slots__ = ("_decode_ms", "_mixed_steps", "_token_ms")

    def __init__(self) -> None:
        self._decode_ms: float | None = None  # of a step that only decodes
        self._token_ms: float | None = None  # that one more token of a prompt adds to a step
        self._mixed_steps = 0  # since the last one that only decoded

    def limit(self, n_decode: int) -> int | None:
        """Maximum number of prompt tokens in the next step, beside `n_decode` rows of streams; None: no
        limit.
        """
        if not n_decode or not self._decode_ms or not self._token_ms:
            return None
        if self._mixed_steps >= REFRESH:
            return 0
        n = (STRETCH - 1) * self._decode_ms / self._token_ms
        return max(SMALLEST_CHUNK, int(min(n, LARGEST_CHUNK)) // MULTIPLE * MULTIPLE)

    def measured(self, n_decode: int, n_prefill: int, ms: float) -> None:
        """Record that a step of `n_decode` rows of streams and `n_prefill` prompt tokens took `ms`
        milliseconds.
        """
        if not n_prefill:
            self._mixed_steps = 0
            self._decode_ms = _mean(self._decode_ms, ms)
            return
        self._mixed_steps += n_decode > 0
        if n_prefill >= FEWEST_ROWS or (n_decode and self._decode_ms is not None):
            # What a step takes in any case is that of a step that only decodes.
            self._token_ms = _mean(self._token_ms, max(ms - (self._decode_ms or 0.0), 0.0) / n_prefill)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
