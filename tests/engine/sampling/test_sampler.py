"""Which token is drawn from a row that no step changes, and what bias, bans and masks do to it."""

import numpy as np
import pytest

from support.references.samplers import INF, drawn, greedy, logs, row, sampler


def test_greedy_takes_the_lowest_id_among_equals():
    assert greedy(row(1, 3, 2, 3)) == 1
    assert greedy(row(-INF, -5, -INF, -5)) == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_tiny_temperature_takes_the_largest_remaining_logit(temperature):
    p = logs(0.5, 0.25, 0.125, 0.125)
    assert drawn(p, temperature=temperature, top_p=0.9, min_p=0.1, top_k=3) == {0}
    # Typical sampling with p 0.2 leaves only token 1, as in llama.cpp.
    assert drawn(p, temperature=temperature, typical_p=0.2) == {1}


def test_draw_frequencies_follow_the_probabilities():
    s = sampler(3)
    counts = np.bincount([s.sample(logs(0.6, 0.3, 0.1)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.6, 0.3, 0.1], atol=0.03)


def test_logit_bias_adds_and_bans():
    assert greedy(row(1, 0, 0.9), logit_bias={1: 1.5}) == 1
    assert greedy(row(1, 0, 0.9), logit_bias={0: -INF}) == 2
    assert drawn(row(1, 1, 1), logit_bias={0: -INF, 2: -INF}) == {1}


def test_min_tokens_bans_end_tokens_until_reached():
    s = sampler(3, eog=[2], temperature=0.0, min_tokens=2, stop_token_ids=(1,))
    assert [s.sample(row(0, 1, 2)).id for _ in range(4)] == [0, 0, 2, 2]
    resumed = sampler(3, eog=[2], n_generated=1, temperature=0.0, min_tokens=2)
    assert [resumed.sample(row(0, 1, 2)).id for _ in range(2)] == [1, 2]


def test_ignore_eos_bans_only_ends_of_generation():
    s = sampler(3, eog={2}, temperature=0.0, ignore_eos=True, stop_token_ids=(1,))
    assert [s.sample(row(0, 1, 2)).id for _ in range(3)] == [1, 1, 1]


def test_end_id_without_a_logit_is_ignored():
    assert greedy(row(0, 1, 2), eog=[2, 3, 100, -1], ignore_eos=True) == 1


def test_mask_bit_allows_its_token():
    logits = np.arange(70, dtype=np.float32)
    assert greedy(logits, np.array([0b1010, 0, 0b10], dtype=np.uint32)) == 65
    assert greedy(logits, np.array([0b1010, 0, 0], dtype=np.uint32)) == 3
    assert greedy(logits, np.array([0xFFFFFFFF, 0xFFFFFFFF, 0], dtype=np.uint32)) == 63
    assert greedy(logits, np.full(3, 0xFFFFFFFF, dtype=np.uint32)) == 69
    s = sampler(70)
    mask = np.array([1 << 5, 1 << 8, 0], dtype=np.uint32)
    assert {s.sample(np.zeros(70, np.float32), mask).id for _ in range(50)} == {5, 40}


def test_callers_logits_are_not_modified():
    logits = np.linspace(-1, 1, 500, dtype=np.float32)
    before = logits.copy()
    logits.flags.writeable = False
    s = sampler(
        500, eog=[3], history=[1, 2, 3], presence_penalty=1.0, logit_bias={7: 2.0}, min_tokens=5, top_k=9
    )
    for _ in range(10):
        s.sample(logits, np.full(16, 0xFFFF0FFF, np.uint32))
    assert np.array_equal(logits, before)
