"""Drafts from what the text said before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduler.ngram_lookup import (
    BACKLOG,
    FIRST_CHANCES,
    LARGEST_TABLE,
    LONGEST,
    NgramLookup,
)
from support.quick import examples

FEW = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def followed(tokens: list[int], n_prompt: int = 1, n_most: int = 4096) -> NgramLookup:
    lookup = NgramLookup(n_prompt, n_most)
    for n in range(n_prompt, len(tokens) + 1):
        lookup.extend(tokens[:n])
    return lookup


def test_draft_of_repeated_text_is_its_earlier_continuation() -> None:
    tokens = [*range(10, 50), 7, 8, 20, 21]
    lookup = followed(tokens)
    assert lookup.match_length == 2
    assert lookup.draft(tokens, 5) == [22, 23, 24, 25, 26]


def test_draft_of_a_text_without_repetition_is_empty() -> None:
    assert followed([*range(300), 5]).draft([*range(300), 5], 4) == []


def test_draft_beyond_the_end_continues_with_the_period() -> None:
    tokens = [9, 1, 2, 3, 1, 2, 3, 1, 2]
    assert followed(tokens).draft(tokens, 8) == [3, 1, 2, 3, 1, 2, 3, 1]


def test_draft_follows_the_longer_match_rather_than_the_later_one() -> None:
    tokens = [1, 2, 3, 4, 50, 9, 9, 3, 4, 60, 8, 8, 1, 2, 3, 4]
    assert followed(tokens).draft(tokens, 1) == [50]


def test_draft_follows_the_latest_of_equal_matches() -> None:
    tokens = [1, 2, 50, 9, 1, 2, 60, 8, 1, 2]
    assert followed(tokens).draft(tokens, 1) == [60]


def test_match_ends_with_the_first_other_token() -> None:
    tokens = [*range(10, 50), 20, 21, 22, 23]
    assert followed(tokens).match_length == 4
    assert followed([*tokens, 99]).match_length == 0


def test_a_long_prompt_is_entered_step_by_step_the_last_tokens_first() -> None:
    prompt = [*range(4 * BACKLOG)]
    lookup = NgramLookup(len(prompt), len(prompt) + 100)
    seen = []
    for begin in (2 * BACKLOG, 50):
        tokens = [*prompt]
        for token in (begin, begin + 1, begin + 2):
            tokens.append(token)
            lookup.extend(tokens)
        seen.append(lookup.draft(tokens, 2))
        prompt = tokens
    assert seen == [[2 * BACKLOG + 3, 2 * BACKLOG + 4], [53, 54]]


def test_chances_are_learned_from_every_token_also_without_drafts() -> None:
    rising = followed([*range(10, 200), *range(10, 60)])
    assert rising.chance(0) > 0.9 > FIRST_CHANCES[0]
    falling: list[int] = [*range(10, 200)]
    for i in range(10, 60):
        falling += [i, i + 1, 1000 + i]  # two tokens that occurred, and another one than then
    lookup = followed([*falling, 70, 71])
    assert lookup.match_length == 2
    assert lookup.chance(0) < 0.05 < FIRST_CHANCES[0]


@examples(200)
@given(FEW, st.integers(1, 60))
def test_match_length_is_the_actual_length(tokens: list[int], n_prompt: int) -> None:
    lookup = followed(tokens, min(n_prompt, len(tokens)))
    n = lookup.match_length
    assert 0 <= lookup.chance(0) <= 1 or not n
    draft = lookup.draft(tokens, 3)
    assert len(draft) == (3 if n else 0)
    if n:
        suffix, text = tokens[len(tokens) - n :], [*tokens, *draft]
        places = [i for i in range(len(tokens) - n) if tokens[i : i + n] == suffix]
        assert draft in [text[i + n : i + n + 3] for i in places]


@examples(200)
@given(FEW)
def test_repetitive_text_is_matched(tokens: list[int]) -> None:
    """A match of four tokens or more is not missed, but for n-grams that have the same hash.

    In the largest table those of four different tokens have none in common.
    """
    lookup = followed(tokens, n_most=LARGEST_TABLE)
    if len(tokens) > 4 and any(tokens[i : i + 4] == tokens[-4:] for i in range(len(tokens) - 4)):
        assert lookup.match_length >= 4
    assert lookup.match_length <= LONGEST
