"""Which tokens a step brings, given the logits of a draft."""

from __future__ import annotations

from array import array

import pytest

from engine.types import FinishReason, InferenceParameters
from support.fakes.runner import GREEDY, Model, Outcome, drain, make_scheduler, request

MODEL = Model()
PROMPT = [5, 6, 7, 8, 9, 10]


def steps(params: InferenceParameters, draft: list[int]) -> tuple[Outcome, list[int], list[int]]:
    """A request with this draft after its first token: outcome, tokens by step, the draft's counts."""
    scheduler, _ = make_scheduler()
    pending = [draft]
    scheduler._builder.drafting.choose = (  # type: ignore[method-assign]
        lambda sequences, room: [pending.pop() if pending else [] for _ in sequences]
    )
    scheduler.submit(request("a", PROMPT, params=params, draft_max=8))
    outcome, sizes = Outcome(), []
    while scheduler.has_work:
        emissions = scheduler.step()
        outcome.add(emissions)
        scheduler.check()
        sizes += [len(emission.tokens) for emission in emissions]
    stats = scheduler.stats()
    return outcome, sizes, [stats.drafts, stats.draft_tokens, stats.draft_accepted_tokens]


@pytest.mark.parametrize("n_right", range(5))
def test_a_draft_brings_its_right_tokens_and_one_more(n_right: int) -> None:
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    wrong = [(token + 1) % 40 for token in expected]
    draft = [*expected[1 : 1 + n_right], *wrong[1 + n_right : 5]]
    outcome, sizes, counts = steps(GREEDY, draft)
    assert outcome.tokens["a"] == expected
    assert sizes[:2] == [1, n_right + 1]
    assert counts == [1, 4, n_right]
    timings = outcome.last["a"].timings
    assert timings is not None
    assert (timings.predicted_n, timings.draft_n, timings.draft_accepted) == (8, 4, n_right)


def test_a_token_that_stops_ends_the_text_within_a_draft() -> None:
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    params = InferenceParameters(temperature=0.0, max_tokens=8, stop_token_ids=(expected[2],))
    outcome, sizes, _ = steps(params, expected[1:6])
    assert (outcome.tokens["a"], outcome.finish("a")) == (expected[:3], FinishReason.STOP)
    assert sizes == [1, 2]


def test_drafts_change_no_sampled_text() -> None:
    for seed in range(8):
        params = InferenceParameters(temperature=1.0, seed=seed, repeat_penalty=2.0, max_tokens=12)
        expected, _ = MODEL.continuation(PROMPT, params, 64)
        outcome, sizes, _ = steps(params, [*expected[1:4], 39, 39])
        assert outcome.tokens["a"] == expected
        assert len(sizes) < len(expected)


def test_drafts_leave_the_prefix_cache_as_it_would_be() -> None:
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    caches = []
    for draft in ([], expected[1:4], [39, 39, 39]):
        scheduler, _ = make_scheduler()
        scheduler._builder.drafting.choose = (  # type: ignore[method-assign]
            lambda sequences, room, draft=draft: [draft if s.n_generated == 1 else [] for s in sequences]
        )
        scheduler.submit(request("a", PROMPT, draft_max=8))
        drain(scheduler)
        caches.append(scheduler.prefix.match(array("i", [*PROMPT, *expected]), 64).n)
    assert caches == [len(PROMPT) + len(expected) - 1] * 3
