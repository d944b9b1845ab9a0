"""Greedy texts with their margins, and their comparison.

Kernels round differently at different batch sizes, so two right answers may part at a step whose two
best logits are all but equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.scheduler.scheduler import Scheduler
from engine.types import FinishReason, InferenceParameters, Request, Timings

NEAR_TIE = 1e-3  # in logits


class Greedy(NamedTuple):
    tokens: list[int]
    margins: list[float]  # best logit minus second best, at each step
    timings: Timings


@dataclass
class GreedyComparison:
    n: int = 0
    near_ties: int = 0

    def __call__(self, got: Greedy, expected: Greedy, tie: float = NEAR_TIE) -> None:
        """Assert equal tokens, up to a step at which either side saw a near-tie."""
        self.n += 1
        assert len(got.tokens) == len(expected.tokens) or got.tokens != expected.tokens
        for i, (a, b) in enumerate(zip(got.tokens, expected.tokens, strict=False)):
            if a != b:
                margin = min(got.margins[i], expected.margins[i])
                assert margin < tie, f"step {i}: {a} != {b} although the margin is {margin}"
                self.near_ties += 1
                return
        assert len(got.tokens) == len(expected.tokens)


def run(scheduler: Scheduler, requests: Iterable[Request]) -> dict[str, Greedy]:
    """Submit all, step to the end; the requests must ask for logprobs=2."""
    collected: dict[str, Greedy] = {}
    for request in requests:
        scheduler.submit(request)
        collected[request.id] = Greedy([], [], Timings())
    while scheduler.has_work:
        for emission in scheduler.step():
            entry = collected[emission.id]
            for token in emission.tokens:
                assert token.top is not None
                entry.tokens.append(token.id)
                entry.margins.append(token.top[0][1] - token.top[1][1])
            if emission.finish is not None:
                assert emission.finish in (FinishReason.STOP, FinishReason.LENGTH), emission.error
                assert emission.timings is not None
                collected[emission.id] = entry._replace(timings=emission.timings)
    return collected


def request(id: str, prompt: Sequence[int], n: int = 48, n_batch: int = 512, cache: bool = True) -> Request:
    """A greedy request of n tokens."""
    params = InferenceParameters(temperature=0.0, max_tokens=n, logprobs=2, ignore_eos=True)
    return Request(id=id, prompt=list(prompt), params=params, n_batch=n_batch, cache_prompt=cache)
