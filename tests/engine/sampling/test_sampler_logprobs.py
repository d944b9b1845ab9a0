"""The probabilities that are reported with a token."""

import math

import numpy as np
import pytest

from support.references.samplers import INF, logs, row, sampler


def test_logprobs_are_of_the_unmodified_row():
    p = logs(0.5, 0.3, 0.2)
    s = sampler(
        3,
        logprobs=2,
        temperature=0.7,
        top_k=1,
        logit_bias={0: -INF},
        repeat_penalty=1.5,
        history=[1],
        mirostat=0,
    )
    token = s.sample(p)
    assert token.id in (1, 2)
    assert token.logprob == pytest.approx(math.log([0.5, 0.3, 0.2][token.id]), abs=1e-6)
    assert [i for i, _ in token.top] == [0, 1]
    assert [lp for _, lp in token.top] == pytest.approx(np.log([0.5, 0.3]), abs=1e-6)


def test_requested_number_of_logprobs_is_returned():
    logits = row(1, 3, 3, -INF, 2)
    none, only, three, many = (sampler(5, logprobs=n).sample(logits) for n in (None, 0, 3, 20))
    assert (none.logprob, none.top) == (None, None)
    assert only.logprob is not None
    assert only.top == []
    assert [i for i, _ in three.top] == [1, 2, 4]  # equals: lower id first
    assert [i for i, _ in many.top] == [1, 2, 4, 0]  # an impossible token has no log-probability


def test_post_sampling_probabilities_follow_truncation_and_temperature():
    kw = {"top_k": 3, "temperature": 0.5, "logprobs": 5, "post_sampling": True, "seed": 1}
    logits = row(1.0, 3.0, 2.0, 0.0, 2.5)
    token = sampler(5, **kw).sample(logits)
    weights = {id: math.exp(logits[id] / 0.5) for id in (1, 4, 2)}
    expected = {id: math.log(w / sum(weights.values())) for id, w in weights.items()}
    assert token.top == [(id, pytest.approx(p, rel=1e-5)) for id, p in expected.items()]
    assert token.logprob == pytest.approx(expected[token.id], rel=1e-5)
    assert len(sampler(5, **{**kw, "logprobs": 2}).sample(logits).top) == 2
    assert sampler(5, **{**kw, "logprobs": 0}).sample(logits).top == []


def test_equal_post_sampling_probabilities_are_ordered_by_id():
    token = sampler(4, logprobs=4, post_sampling=True, seed=1).sample(row(1, 1, 1, 1))
    assert token.top == [(id, pytest.approx(math.log(0.25))) for id in range(4)]


def test_removed_tokens_are_not_listed_and_greedy_lists_one():
    banned = {0: -math.inf}
    token = sampler(3, logprobs=3, post_sampling=True, logit_bias=banned, seed=1).sample(row(9, 1, 2))
    assert [id for id, _ in token.top] == [2, 1]
    token = sampler(3, logprobs=3, post_sampling=True, temperature=0).sample(row(1, 3, 2))
    assert (token.id, token.logprob, token.top) == (1, 0.0, [(1, 0.0)])
