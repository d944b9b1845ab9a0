"""Truncation and temperature on a few logits worked out by hand, each alone and in order."""

import math

import numpy as np
import pytest

from support.references.samplers import INF, drawn, logs, row, sampler


def test_top_k_keeps_the_most_likely():
    p = logs(0.1, 0.4, 0.2, 0.3)
    assert drawn(p, top_k=2) == {1, 3}
    assert drawn(p, top_k=1) == {1}
    assert drawn(p, top_k=4) == drawn(p, top_k=99) == {0, 1, 2, 3}


def test_top_k_keeps_the_lower_ids_among_equals():
    assert drawn(row(1, 1, 0, 1, 1), top_k=3) == {0, 1, 3}


def test_tail_free_removes_the_tail():
    # p .5 .3 .1 .06 .04; first differences .2 .2 .04 .02; second 0 .16 .02, normalised 0 .889 .111,
    # summed 0 .889 1. More than z first at index 1 for z .5, at index 2 for z .95: so many remain.
    p = logs(0.5, 0.3, 0.1, 0.06, 0.04)
    assert drawn(p, tfs_z=0.5) == {0}
    assert drawn(p, tfs_z=0.95) == {0, 1}


def test_tail_free_of_equal_tokens_keeps_a_share():
    # no bend anywhere: 3 second differences count 1/3 each; 1/3 2/3 1 exceeds .5 at index 1, .9 at index 2
    assert drawn(row(1, 1, 1, 1, 1), tfs_z=0.5) == {0}
    assert drawn(row(1, 1, -INF, 1, 1, 1), tfs_z=0.9) == {0, 1}  # what is impossible makes no bend either


def test_typical_keeps_tokens_near_the_entropy():
    # p 1/2 1/4 1/8 1/8: entropy 1/2 + 2/4 + 3/8 + 3/8 = 1.75 bits; surprises 1 2 3 3;
    # distances .75 .25 1.25 1.25: order 1 0 2 3, summing to .25 .75 .875 1
    p = logs(0.5, 0.25, 0.125, 0.125)
    assert drawn(p, typical_p=0.2) == {1}
    assert drawn(p, typical_p=0.7) == {0, 1}
    assert drawn(p, typical_p=0.8) == {0, 1, 2}


def test_top_p_keeps_the_smallest_set_with_that_sum():
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, top_p=0.45) == {1}
    assert drawn(p, top_p=0.7) == {1, 3}
    assert drawn(p, top_p=0.9) == {0, 1, 3}
    assert drawn(p, top_p=0.0) == {1}


def test_min_p_keeps_tokens_relative_to_the_most_likely():
    # a quarter of .5 is .125
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, min_p=0.25) == {0, 1, 3}
    assert drawn(p, min_p=1.0) == {1}


def test_top_a_keeps_tokens_relative_to_the_squared_maximum():
    # .5 squared is .25; times .8: .2; times .5: .125
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, top_a=0.8) == {1, 3}
    assert drawn(p, top_a=0.5) == {0, 1, 3}


def test_top_n_sigma_keeps_logits_near_the_largest():
    # Mean 1, deviation (4 + 1 + 0 + 1 + 4 over 5)^.5 = 1.414
    x = row(-1, 0, 1, 2, 3)
    assert drawn(x, top_n_sigma=0.7) == {4}
    assert drawn(x, top_n_sigma=0.71) == {3, 4}
    assert drawn(row(-1, 0, 1, 2, 3, -INF), top_n_sigma=0.71) == {3, 4}
    assert drawn(row(-1, 0, 1, 2, 3, 50), top_n_sigma=0.71, logit_bias={5: -INF}) == {3, 4}


def test_xtc_leaves_the_least_likely_of_the_top_choices():
    p = logs(0.35, 0.3, 0.2, 0.1, 0.05)
    kw = {"xtc_probability": 1.0}
    assert drawn(p, xtc_threshold=0.15, **kw) == {2, 3, 4}
    assert drawn(p, xtc_threshold=0.31, **kw) == {0, 1, 2, 3, 4}  # of one choice nothing is removed
    assert drawn(p, xtc_threshold=0.15, min_keep=4, **kw) == {0, 1, 2, 3, 4}
    assert drawn(p, xtc_threshold=0.15, temperature=0.0, **kw) == {2}
    assert drawn(logs(0.25, 0.25, 0.25, 0.25), xtc_threshold=0.2, **kw) == {3}
    assert drawn(logs(0.6, 0.4), xtc_threshold=0.6, **kw) == {0, 1}  # above 0.5: off


def test_xtc_removes_tokens_with_the_given_probability():
    s = sampler(3, xtc_probability=0.3, xtc_threshold=0.2, temperature=0.0)
    counts = np.bincount([s.sample(logs(0.5, 0.3, 0.2)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.7, 0.0, 0.3], atol=0.03)


def test_temperature_divides_the_logits():
    # p^(1/2) of .64 .32 .04: .8 .5657 .2, of their sum 1.5657: .511 .361 .128
    s = sampler(3, temperature=2.0)
    counts = np.bincount([s.sample(logs(0.64, 0.32, 0.04)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.511, 0.361, 0.128], atol=0.03)


def test_dynamic_temperature_follows_the_entropy():
    # Of two tokens .8 .2 the entropy is .722 bits of 1: temperature .5 + 1 * .722^2 = 1.021
    p, kw = logs(0.8, 0.2), {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0}
    token = sampler(2, logprobs=2, post_sampling=True, **kw).sample(p)
    share = 0.8 ** (1 / 1.0212) / (0.8 ** (1 / 1.0212) + 0.2 ** (1 / 1.0212))
    assert math.exp(dict(token.top)[0]) == pytest.approx(share, abs=1e-4)
    assert drawn(row(1, 1, 1), temperature=0.0, dynatemp_range=0.5) == {0, 1, 2}  # even: the upper end
    assert drawn(row(1, -INF), temperature=0.0, dynatemp_range=0.5) == {0}


def test_each_step_sees_what_the_steps_before_it_left():
    p = logs(0.5, 0.3, 0.2)
    # top_k 2: .625 .375, so top_p .6 keeps one (.5 alone would not reach .6)
    assert drawn(p, top_k=2, top_p=0.6) == {0}
    # top_p .75 keeps .5 .3, renormalised .625 .375; top_a: .625^2 * .98 = .383 > .375 drops token 1,
    # which alone it would not: .5^2 * .98 = .245 < .3
    assert drawn(p, top_p=0.75, top_a=0.98) == {0}
    assert drawn(p, top_a=0.98) == {0, 1}
    # top_p .6 keeps .5 .3, both at least .4 of .5; min_p first would leave .625 .375, of which one is enough
    assert drawn(p, top_p=0.6, min_p=0.4) == {0, 1}
    # p .4 .2 .15 .15 .1: entropy 2.146 bits, surprises 1.322 2.322 2.737 2.737 3.322, so typical .45 keeps
    # .2 .15 .15 without the most likely token; of .2 they are at least .7, not .8
    p = logs(0.4, 0.2, 0.15, 0.15, 0.1)
    assert drawn(p, typical_p=0.45, min_p=0.7) == {1, 2, 3}
    assert drawn(p, typical_p=0.45, min_p=0.8) == {1}


def test_truncation_comes_before_temperature():
    # .6 reaches .58 alone. After temperature 2 it would be .6^.5 = .775 of 1.639, .473, and not reach it.
    assert drawn(logs(0.6, 0.3, 0.1), top_p=0.58, temperature=2.0) == {0}
    # .6 misses .65. After temperature .1 it would be .999.
    assert drawn(logs(0.6, 0.35, 0.05), top_p=0.65, temperature=0.9) == {0, 1}


def test_steps_run_in_the_order_of_samplers():
    p = logs(0.5, 0.3, 0.2)
    # At temperature 3 the best token has a share of only .39, so that top_p 0.5 keeps two; before it, one.
    kw = {"temperature": 3.0, "top_p": 0.5}
    assert drawn(p, samplers=("top_p", "temperature"), **kw) == {0}
    assert drawn(p, samplers=("temperature", "top_p"), **kw) == {0, 1}
    assert drawn(p, samplers=("temperature",), **kw) == {0, 1, 2}
    kw = {"presence_penalty": 5.0, "top_k": 1, "history": [0]}
    assert sampler(3, samplers=("penalties", "top_k"), **kw).sample(p).id == 1
    assert sampler(3, samplers=("top_k", "penalties"), **kw).sample(p).id == 0
    assert drawn(p, samplers=(), temperature=0.0, top_k=1) == {0, 1, 2}
    assert drawn(logs(0.4, 0.3, 0.2, 0.1), samplers=("top_p", "top_p"), top_p=0.5) == {0}  # twice: of .57 .43
