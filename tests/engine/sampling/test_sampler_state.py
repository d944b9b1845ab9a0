"""Mirostat and adaptive-p, whose state goes from token to token."""

import math

import numpy as np
import pytest

from support.references.samplers import drawn, logs, row, sampler


def test_mirostat_2_drops_what_surprises_more_than_mu_bits():
    # surprises 1 2 3 4 4 bits
    p = logs(0.5, 0.25, 0.125, 0.0625, 0.0625)
    kw = {"mirostat": 2, "mirostat_eta": 0.0}  # eta 0: mu stays
    assert drawn(p, state=0.5, **kw) == {0}  # never fewer than one
    assert drawn(p, state=2.5, **kw) == {0, 1}
    assert drawn(p, state=3.5, **kw) == {0, 1, 2}
    assert drawn(p, state=4.5, **kw) == {0, 1, 2, 3, 4}


def test_mirostat_2_moves_mu_by_eta_times_the_error():
    # mu 1.5 leaves token 0 alone: surprise 0 bits, error 0 - 3, mu 1.5 + .1 * 3 = 1.8, then 2.1, which lets
    # token 1 in: p 2/3 1/3, surprise .585 or 1.585
    s = sampler(4, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.1, state=1.5)
    p = logs(0.5, 0.25, 0.125, 0.125)
    assert s.sample(p).sampler_state == pytest.approx(1.8)
    assert s.sample(p).sampler_state == pytest.approx(2.1)
    token = s.sample(p)
    assert token.sampler_state == pytest.approx(2.1 - 0.1 * ({0: 0.585, 1: 1.585}[token.id] - 3), abs=1e-4)
    assert s.state == token.sampler_state


def test_mirostat_begins_at_twice_tau():
    assert sampler(4, mirostat=1, mirostat_tau=2.5).state == 5.0
    assert sampler(4, mirostat=2, mirostat_tau=2.5, state=1.25).state == 1.25
    assert sampler(4).state is None


def test_mirostat_1_keeps_the_k_of_the_fitted_slope():
    # p of rank i proportional to i^-2 is Zipf's law with slope 2, which the fit finds exactly: eps 1,
    # k = (1 * 2^mu / (1 - 100^-1))^(1/2). mu 4: (16 / .99)^.5 = 4.02; mu 2: (4 / .99)^.5 = 2.01
    p = row(*(-2 * math.log(i) for i in range(1, 101)))
    kw = {"mirostat": 1, "mirostat_eta": 0.0}
    assert drawn(p, state=4.0, **kw) == {0, 1, 2, 3}
    assert drawn(p, state=2.0, **kw) == {0, 1}
    assert drawn(p, state=-30.0, **kw) == {0}
    assert drawn(p, state=1000.0, **kw) >= {0, 1, 2, 3, 4, 5}


def test_mirostat_applies_after_temperature():
    # temperature 1/2 squares p: .25 .0625 ... of .3437 (.0156 twice): surprises .46 2.46 4.46 4.46 bits
    p = logs(0.5, 0.25, 0.125, 0.125)
    kw = {"mirostat": 2, "mirostat_eta": 0.0, "state": 2.5}
    assert drawn(p, temperature=0.5, **kw) == {0, 1}
    assert drawn(p, temperature=0.5, **{**kw, "state": 2.4}) == {0}


def test_mirostat_replaces_truncation_and_yields_to_greedy():
    p = logs(0.5, 0.3, 0.2)
    assert drawn(p, mirostat=2, mirostat_eta=0.0, top_k=1, top_p=0.1) == {0, 1, 2}
    token = sampler(3, mirostat=2, temperature=0.0).sample(p)
    assert (token.id, token.sampler_state) == (0, None)


def test_adaptive_p_prefers_the_target_and_remembers():
    p = logs(0.6, 0.3, 0.1)
    kw = {"samplers": ("adaptive_p",), "adaptive_target": 0.3, "adaptive_decay": 0.9}
    s = sampler(3, logprobs=3, post_sampling=True, **kw)
    token = s.sample(p)
    # distances from .3 over .3: 1, 0, 2/3; logits 5 - 10 d^2 / (1 + d): 0, 5, 2.333
    weights = np.exp([0, 5, 5 - 10 * (4 / 9) / (5 / 3)])
    top = dict(token.top)
    assert [math.exp(top[i]) for i in range(3)] == pytest.approx(weights / weights.sum(), abs=1e-4)
    assert token.sampler_state == pytest.approx(0.9 * 0.3 + 0.1 * [0.6, 0.3, 0.1][token.id], abs=1e-5)
    assert sampler(3, **{**kw, "adaptive_target": -1.0}).state is None
    assert sampler(3, **{**kw, "samplers": ()}).state is None
    counts = np.bincount([s.sample(p).id for _ in range(500)], minlength=3)
    assert s.state == pytest.approx(0.3, abs=0.1)
    assert counts[1] > 300
