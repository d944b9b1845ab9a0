"""Drafts by n-gram lookup, as the scheduler sees them."""

from __future__ import annotations

from engine.cache.cell_pool import CellPool
from engine.config import SchedulerConfig
from engine.scheduler.drafter import Draft, NgramDrafter, Worth
from engine.scheduler.sequence import ScheduledSequence
from engine.types import Request

ANYTHING = Worth(0.0, 0.0, 10.0, is_alone=True)


def sequence(id: str = "a", **config: bool) -> ScheduledSequence:
    request = Request(id=id, prompt=[1, 2, 3, 4, 1, 2], draft_max=8)
    return ScheduledSequence(
        request, CellPool(8), None, SchedulerConfig(n_ctx=12, **config), arrival=1, now=0.0
    )


def test_draft_is_what_followed_the_last_tokens_when_they_occurred_before() -> None:
    drafter, one = NgramDrafter(), sequence()
    assert list(drafter.chances(one, 2)) == []  # a match is sought with each token that is new
    one.tokens.extend([3, 4])
    chances = drafter.chances(one, 3)
    assert len(chances) == 3
    assert all(0 < chance < 1 for chance in chances)
    assert drafter.draft([one], [3], ANYTHING) == [Draft([1, 2, 3])]
    assert drafter.draft([one], [0], ANYTHING) == [Draft([])]


def test_each_sequence_has_its_own_matches_until_it_is_forgotten() -> None:
    drafter, one, other = NgramDrafter(), sequence(), sequence("b")
    for tokens, following in ((one, [3, 4]), (other, [9, 9])):
        drafter.chances(tokens, 1)
        tokens.tokens.extend(following)
    assert drafter.chances(one, 1)
    assert not drafter.chances(other, 1)
    before = drafter.lookup(one)
    drafter.forget(one)
    drafter.forget(one)
    assert drafter.lookup(one) is not before


def test_a_shifted_context_is_followed_from_its_new_tokens() -> None:
    drafter, one = NgramDrafter(), sequence(context_shift=True)
    drafter.chances(one, 1)
    one.tokens.extend([7, 8, 7, 8, 7, 8])
    one.refit()
    assert one.n_dropped
    assert len(one.tokens) < 12
    drafter.chances(one, 1)
    one.tokens.append(7)
    drafter.chances(one, 1)
    assert all(0 <= token <= 8 for token in drafter.draft([one], [4], ANYTHING)[0].tokens)
