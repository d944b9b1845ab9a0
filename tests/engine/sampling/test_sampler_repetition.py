"""What the tokens so far do to a row: penalties and DRY, on a few logits worked out by hand."""

import math

import numpy as np
import pytest

from support.references.samplers import INF, greedy, row, sampler


@pytest.mark.parametrize(
    ("logits", "penalty", "expected"),
    [
        (row(2.0, 1.9), 1.1, 1),  # 2 / 1.1 = 1.818 < 1.9
        (row(2.0, 1.9), 1.05, 0),  # 2 / 1.05 = 1.905 > 1.9
        (row(-1.0, -1.05), 1.1, 1),  # -1 * 1.1 = -1.1 < -1.05
        (row(-1.0, -1.05), 1.04, 0),  # -1 * 1.04 = -1.04 > -1.05
        (row(1.0, 1.9), 0.5, 0),  # below 1 it rewards: 1 / 0.5 = 2 > 1.9
    ],
)
def test_repeat_penalty_divides_positive_and_multiplies_negative_logits(logits, penalty, expected):
    assert greedy(logits, history=[0], repeat_penalty=penalty) == expected


def test_repeat_penalty_ignores_the_number_of_occurrences():
    assert greedy(row(2.0, 1.7), history=[0, 0, 0, 0], repeat_penalty=1.1) == 0  # 1.818 > 1.7 however often


def test_frequency_penalty_counts_occurrences_and_presence_penalty_does_not():
    # three times token 0: 2 - 3 * 0.4 = 0.8 < 1; twice: 2 - 0.8 = 1.2 > 1
    assert greedy(row(2, 1), history=[0, 0, 0], frequency_penalty=0.4) == 1
    assert greedy(row(2, 1), history=[0, 0], frequency_penalty=0.4) == 0
    # 2 - 0.9 = 1.1 > 1, and 2 - 1.1 = 0.9 < 1, however often
    assert greedy(row(2, 1), history=[0, 0, 0], presence_penalty=0.9) == 0
    assert greedy(row(2, 1), history=[0], presence_penalty=1.1) == 1


def test_penalties_add_up():
    # 4 / 2 = 2, then 2 - 2 * 0.25 - 0.5 = 1: above 0.99, below 1.01
    kw = {"history": [0, 0], "repeat_penalty": 2.0, "frequency_penalty": 0.25, "presence_penalty": 0.5}
    assert greedy(row(4, 0.99), **kw) == 0
    assert greedy(row(4, 1.01), **kw) == 1


def test_bias_comes_before_penalties():
    # -1 + 3 = 2, 2 / 4 = 0.5 > 0; the other way round: -1 * 4 + 3 = -1 < 0
    assert greedy(row(-1, 0), history=[0], logit_bias={0: 3.0}, repeat_penalty=4.0) == 0


def test_penalties_apply_within_their_window():
    kw = {"presence_penalty": 10.0}
    assert greedy(row(2, 1), history=[0, 1, 1], repeat_last_n=2, **kw) == 0  # token 0 is out of the window
    assert greedy(row(2, 1.5, 1), history=[0, 1, 1], repeat_last_n=3, **kw) == 2
    assert greedy(row(2, 1), history=[0], repeat_last_n=0, **kw) == 0  # off
    assert greedy(row(2, 1, 0), history=[0, *[2] * 5000], repeat_last_n=-1, **kw) == 1  # the whole session


def test_generated_tokens_enter_and_leave_the_window():
    # -4 for a token in a window of 2. 3 2 1 0 -> 0; -1 2 1 0 -> 1; -1 -2 1 0 -> 2; token 0 is out -> 0; ...
    s = sampler(4, temperature=0.0, presence_penalty=4.0, repeat_last_n=2)
    assert [s.sample(row(3, 2, 1, 0)).id for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_counts_decrease_when_tokens_leave_the_window():
    # 0 0: 1 < 2.5 -> 1; 0 0 1: 1 < 1.5 -> 1; 0 1 1: 2 > .5 -> 0; 1 1 0: 2 > .5 -> 0; 1 0 0: 1 < 1.5 -> 1
    s = sampler(2, temperature=0.0, frequency_penalty=1.0, repeat_last_n=3, history=[0, 0])
    assert [s.sample(row(3, 2.5)).id for _ in range(5)] == [1, 1, 0, 0, 1]


A, B, C, D = range(4)


@pytest.mark.parametrize(
    ("history", "kw", "losses"),
    [
        ([A, B, C, A, B], {}, {C: 1}),  # a b is 2 tokens, and c would lengthen it
        ([D, A, B, C, D, A, B], {}, {C: 1.75}),
        ([D, A, B, C, D, A, B], {"dry_allowed_length": 4}, {}),
        ([D, A, B, C, D, A, B], {"dry_penalty_last_n": 4}, {}),
        ([A, B, C, D, C, A, B, D, A, B], {}, {C: 1, D: 1}),
        ([A, A, A, A], {}, {A: 1.75}),  # a a a once followed a
        ([B, C, D], {}, {}),
        ([], {}, {}),
        ([A, B, C, A, B], {"dry_penalty_last_n": 0}, {}),
        ([A, B] * 2000, {"dry_penalty_last_n": -1, "dry_base": 2.0}, {A: INF}),
    ],
)
def test_dry_penalizes_tokens_that_lengthen_a_repetition(history, kw, losses):
    x, kw = np.zeros(4, np.float32), {"dry_multiplier": 1.0, **kw}
    token = sampler(4, history=history, logprobs=4, post_sampling=True, **kw).sample(x)
    weights = np.exp(-np.array([losses.get(i, 0.0) for i in range(4)]))
    top = dict(token.top)
    assert [math.exp(top.get(i, -INF)) for i in range(4)] == pytest.approx(weights / weights.sum(), abs=1e-4)


@pytest.mark.parametrize(
    ("breakers", "is_free"),
    [
        ([], False),
        ([[D]], False),
        ([[B]], True),
        ([[A]], True),
        ([[C]], True),
        ([[A, B]], True),
        ([[B, A]], False),
    ],
)
def test_a_breaker_ends_a_repetition(breakers, is_free):
    s = sampler(4, history=[A, B, C, D, A, B], dry_multiplier=10.0, temperature=0.0, logit_bias={C: 1.0})
    s.break_repetitions(breakers)
    assert (s.sample(np.zeros(4, np.float32)).id == C) == is_free


def test_dry_never_bans():
    s = sampler(2, history=[0, 0] * 2000, dry_multiplier=100.0, dry_base=1e6, dry_penalty_last_n=-1)
    assert s.sample(row(0, -INF)).id == 0
