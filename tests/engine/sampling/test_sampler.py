"""Each step of the sampler on a few logits worked out by hand."""

import math

import numpy as np
import pytest

from engine.errors import ConfigError, GgmlError
from engine.sampling.sampler import Sampler
from engine.types import InferenceParameters

NAN, INF = math.nan, math.inf


def row(*logits: float) -> np.ndarray:
    return np.array(logits, dtype=np.float32)


def logs(*probabilities: float) -> np.ndarray:
    return row(*(math.log(p) for p in probabilities))


def sampler(n_vocab: int, eog=(), history=(), n_generated=0, state=None, **params) -> Sampler:
    params.setdefault("seed", 7)
    return Sampler(InferenceParameters(**params), n_vocab, eog, history, n_generated, state)


def greedy(logits: np.ndarray, mask=None, **kw) -> int:
    return sampler(len(logits), temperature=0.0, **kw).sample(logits, mask).id


def drawn(logits: np.ndarray, **kw) -> set[int]:
    """Every token that 400 draws give: with no probability below 0.03, all that truncation left."""
    s = sampler(len(logits), **kw)
    return {s.sample(logits).id for _ in range(400)}


# ---- the plain draw ----


def test_greedy_takes_the_lowest_id_among_equals():
    assert greedy(row(1, 3, 2, 3)) == 1
    assert greedy(row(-INF, -5, -INF, -5)) == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_tiny_temperature_takes_the_greatest_of_what_the_steps_leave(temperature):
    p = logs(0.5, 0.25, 0.125, 0.125)
    assert drawn(p, temperature=temperature, top_p=0.9, min_p=0.1, top_k=3) == {0}
    # Typical sampling with p 0.2 leaves only token 1, as in llama.cpp.
    assert drawn(p, temperature=temperature, typical_p=0.2) == {1}


def test_draws_follow_the_probabilities():
    s = sampler(3)
    counts = np.bincount([s.sample(logs(0.6, 0.3, 0.1)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.6, 0.3, 0.1], atol=0.03)


def test_temperature_divides_the_logits():
    # p^(1/2) of .64 .32 .04: .8 .5657 .2, of their sum 1.5657: .511 .361 .128
    s = sampler(3, temperature=2.0)
    counts = np.bincount([s.sample(logs(0.64, 0.32, 0.04)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.511, 0.361, 0.128], atol=0.03)


# ---- bias and penalties ----


def test_logit_bias_adds_and_bans():
    assert greedy(row(1, 0, 0.9), logit_bias={1: 1.5}) == 1
    assert greedy(row(1, 0, 0.9), logit_bias={0: -INF}) == 2
    assert drawn(row(1, 1, 1), logit_bias={0: -INF, 2: -INF}) == {1}


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


def test_repeat_penalty_does_not_count():
    assert greedy(row(2.0, 1.7), history=[0, 0, 0, 0], repeat_penalty=1.1) == 0  # 1.818 > 1.7 however often


def test_frequency_penalty_counts_and_presence_penalty_does_not():
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


def test_penalty_window():
    kw = {"presence_penalty": 10.0}
    assert greedy(row(2, 1), history=[0, 1, 1], repeat_last_n=2, **kw) == 0  # token 0 is out of the window
    assert greedy(row(2, 1.5, 1), history=[0, 1, 1], repeat_last_n=3, **kw) == 2
    assert greedy(row(2, 1), history=[0], repeat_last_n=0, **kw) == 0  # off
    assert greedy(row(2, 1, 0), history=[0, *[2] * 5000], repeat_last_n=-1, **kw) == 1  # the whole session


def test_generated_tokens_enter_and_leave_the_window():
    # -4 for a token in a window of 2. 3 2 1 0 -> 0; -1 2 1 0 -> 1; -1 -2 1 0 -> 2; token 0 is out -> 0; ...
    s = sampler(4, temperature=0.0, presence_penalty=4.0, repeat_last_n=2)
    assert [s.sample(row(3, 2, 1, 0)).id for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_counts_of_the_window_go_down_again():
    # 0 0: 1 < 2.5 -> 1; 0 0 1: 1 < 1.5 -> 1; 0 1 1: 2 > .5 -> 0; 1 1 0: 2 > .5 -> 0; 1 0 0: 1 < 1.5 -> 1
    s = sampler(2, temperature=0.0, frequency_penalty=1.0, repeat_last_n=3, history=[0, 0])
    assert [s.sample(row(3, 2.5)).id for _ in range(5)] == [1, 1, 0, 0, 1]


# ---- bans ----


def test_min_tokens_bans_ends_until_reached():
    s = sampler(3, eog=[2], temperature=0.0, min_tokens=2, stop_token_ids=(1,))
    assert [s.sample(row(0, 1, 2)).id for _ in range(4)] == [0, 0, 2, 2]
    resumed = sampler(3, eog=[2], n_generated=1, temperature=0.0, min_tokens=2)
    assert [resumed.sample(row(0, 1, 2)).id for _ in range(2)] == [1, 2]


def test_ignore_eos_bans_only_ends_of_generation():
    s = sampler(3, eog={2}, temperature=0.0, ignore_eos=True, stop_token_ids=(1,))
    assert [s.sample(row(0, 1, 2)).id for _ in range(3)] == [1, 1, 1]


def test_end_ids_that_have_no_logit_are_of_no_concern():
    assert greedy(row(0, 1, 2), eog=[2, 3, 100, -1], ignore_eos=True) == 1


def test_mask_allows_by_bit():
    logits = np.arange(70, dtype=np.float32)
    assert greedy(logits, np.array([0b1010, 0, 0b10], dtype=np.uint32)) == 65
    assert greedy(logits, np.array([0b1010, 0, 0], dtype=np.uint32)) == 3
    assert greedy(logits, np.array([0xFFFFFFFF, 0xFFFFFFFF, 0], dtype=np.uint32)) == 63
    assert greedy(logits, np.full(3, 0xFFFFFFFF, dtype=np.uint32)) == 69
    s = sampler(70)
    mask = np.array([1 << 5, 1 << 8, 0], dtype=np.uint32)
    assert {s.sample(np.zeros(70, np.float32), mask).id for _ in range(50)} == {5, 40}


# ---- truncation ----


def test_top_k():
    p = logs(0.1, 0.4, 0.2, 0.3)
    assert drawn(p, top_k=2) == {1, 3}
    assert drawn(p, top_k=1) == {1}
    assert drawn(p, top_k=4) == drawn(p, top_k=99) == {0, 1, 2, 3}


def test_top_k_keeps_the_lower_ids_among_equals():
    assert drawn(row(1, 1, 0, 1, 1), top_k=3) == {0, 1, 3}


def test_tail_free():
    # p .5 .3 .1 .06 .04; first differences .2 .2 .04 .02; second 0 .16 .02, normalised 0 .889 .111,
    # summed 0 .889 1. More than z first at index 1 for z .5, at index 2 for z .95: so many remain.
    p = logs(0.5, 0.3, 0.1, 0.06, 0.04)
    assert drawn(p, tfs_z=0.5) == {0}
    assert drawn(p, tfs_z=0.95) == {0, 1}


def test_tail_free_of_equals_goes_by_count():
    # no bend anywhere: 3 second differences count 1/3 each; 1/3 2/3 1 exceeds .5 at index 1, .9 at index 2
    assert drawn(row(1, 1, 1, 1, 1), tfs_z=0.5) == {0}
    assert drawn(row(1, 1, -INF, 1, 1, 1), tfs_z=0.9) == {0, 1}  # what is impossible makes no bend either


def test_typical():
    # p 1/2 1/4 1/8 1/8: entropy 1/2 + 2/4 + 3/8 + 3/8 = 1.75 bits; surprises 1 2 3 3;
    # distances .75 .25 1.25 1.25: order 1 0 2 3, summing to .25 .75 .875 1
    p = logs(0.5, 0.25, 0.125, 0.125)
    assert drawn(p, typical_p=0.2) == {1}
    assert drawn(p, typical_p=0.7) == {0, 1}
    assert drawn(p, typical_p=0.8) == {0, 1, 2}


def test_top_p():
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, top_p=0.45) == {1}
    assert drawn(p, top_p=0.7) == {1, 3}
    assert drawn(p, top_p=0.9) == {0, 1, 3}
    assert drawn(p, top_p=0.0) == {1}


def test_min_p():
    # a quarter of .5 is .125
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, min_p=0.25) == {0, 1, 3}
    assert drawn(p, min_p=1.0) == {1}


def test_top_a():
    # .5 squared is .25; times .8: .2; times .5: .125
    p = logs(0.15, 0.5, 0.05, 0.3)
    assert drawn(p, top_a=0.8) == {1, 3}
    assert drawn(p, top_a=0.5) == {0, 1, 3}


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


# ---- mirostat ----


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


def test_mirostat_sees_temperature_first():
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


# ---- log-probabilities ----


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


def test_number_of_logprobs():
    logits = row(1, 3, 3, -INF, 2)
    none, only, three, many = (sampler(5, logprobs=n).sample(logits) for n in (None, 0, 3, 20))
    assert (none.logprob, none.top) == (None, None)
    assert only.logprob is not None
    assert only.top == []
    assert [i for i, _ in three.top] == [1, 2, 4]  # equals: lower id first
    assert [i for i, _ in many.top] == [1, 2, 4, 0]  # an impossible token has no log-probability


# ---- what cannot be sampled ----


@pytest.mark.parametrize("bad", [NAN, -NAN, INF])
@pytest.mark.parametrize("place", [0, 70, 99])
def test_a_broken_row_is_an_error_even_where_banned(bad, place):
    logits = np.zeros(100, np.float32)
    logits[place] = bad
    s = sampler(100, logit_bias={place: -INF}, temperature=0.0)
    with pytest.raises(GgmlError, match=rf"no finite logit for 1 of 100 tokens \(token {place} has"):
        s.sample(logits, np.zeros(4, np.uint32))
    assert s.n_generated == 0


def test_a_row_without_any_possible_token_is_an_error():
    with pytest.raises(GgmlError, match="no finite logit"):
        sampler(100).sample(np.full(100, -INF, np.float32))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banning_everything_is_the_users_error(temperature):
    s = sampler(3, eog=[2], temperature=temperature, ignore_eos=True, logit_bias={0: -INF})
    with pytest.raises(ConfigError, match="every token is banned: logit_bias"):
        s.sample(row(1, 1, 1), np.array([0b101], dtype=np.uint32))
    assert s.n_generated == 0
    assert s.sample(row(1, 1, 1)).id == 1


def test_wrong_sizes_and_types_are_refused():
    s = sampler(40)
    with pytest.raises(ConfigError, match="39 logits for a vocabulary of 40"):
        s.sample(np.zeros(39, np.float32))
    with pytest.raises(ConfigError, match="mask of 1 words"):
        s.sample(np.zeros(40, np.float32), np.zeros(1, np.uint32))
    with pytest.raises(ValueError, match="dtype mismatch"):
        s.sample(np.zeros(40, np.float64))
    with pytest.raises(ConfigError, match="history holds token 40"):
        sampler(40, history=[1, 40], presence_penalty=1.0)
    with pytest.raises(ConfigError, match="logit_bias"):
        sampler(40, logit_bias={40: 1.0})
    with pytest.raises(ConfigError, match="state must be finite"):
        sampler(40, mirostat=2, state=NAN)
    with pytest.raises(ConfigError, match="n_vocab"):
        sampler(0)


def test_extreme_logits_and_penalties_stay_numbers():
    big = float(np.finfo(np.float32).max)
    assert greedy(row(big, -big, 0), history=[0], repeat_penalty=0.001, logit_bias={0: 1e6}) == 0
    assert drawn(row(big, -big, 0), history=[0, 1], repeat_penalty=0.001) == {0}
    assert drawn(row(big, -big, 0), history=[0, 1], temperature=100.0, top_p=0.9, typical_p=0.9) == {0}
    assert drawn(row(-big, -big, -INF), top_k=5, tfs_z=0.9, typical_p=0.99, min_p=0.1, top_a=0.1) == {0, 1}


def test_callers_logits_are_only_read():
    logits = np.linspace(-1, 1, 500, dtype=np.float32)
    before = logits.copy()
    logits.flags.writeable = False
    s = sampler(
        500, eog=[3], history=[1, 2, 3], presence_penalty=1.0, logit_bias={7: 2.0}, min_tokens=5, top_k=9
    )
    for _ in range(10):
        s.sample(logits, np.full(16, 0xFFFF0FFF, np.uint32))
    assert np.array_equal(logits, before)


def test_probabilities_after_truncation_and_temperature():
    kw = {"top_k": 3, "temperature": 0.5, "logprobs": 5, "post_sampling": True, "seed": 1}
    logits = row(1.0, 3.0, 2.0, 0.0, 2.5)
    token = sampler(5, **kw).sample(logits)
    weights = {id: math.exp(logits[id] / 0.5) for id in (1, 4, 2)}
    expected = {id: math.log(w / sum(weights.values())) for id, w in weights.items()}
    assert token.top == [(id, pytest.approx(p, rel=1e-5)) for id, p in expected.items()]
    assert token.logprob == pytest.approx(expected[token.id], rel=1e-5)
    assert len(sampler(5, **{**kw, "logprobs": 2}).sample(logits).top) == 2
    assert sampler(5, **{**kw, "logprobs": 0}).sample(logits).top == []


def test_probabilities_after_sampling_of_equals_are_in_order_of_ids():
    token = sampler(4, logprobs=4, post_sampling=True, seed=1).sample(row(1, 1, 1, 1))
    assert token.top == [(id, pytest.approx(math.log(0.25))) for id in range(4)]


def test_what_has_no_chance_is_not_listed_and_greedy_leaves_no_choice():
    banned = {0: -math.inf}
    token = sampler(3, logprobs=3, post_sampling=True, logit_bias=banned, seed=1).sample(row(9, 1, 2))
    assert [id for id, _ in token.top] == [2, 1]
    token = sampler(3, logprobs=3, post_sampling=True, temperature=0).sample(row(1, 3, 2))
    assert (token.id, token.logprob, token.top) == (1, 0.0, [(1, 0.0)])


# ---- llama.cpp's younger steps ----


def test_top_n_sigma_keeps_what_is_near_the_greatest_logit():
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


def test_xtc_removes_something_as_often_as_it_is_told():
    s = sampler(3, xtc_probability=0.3, xtc_threshold=0.2, temperature=0.0)
    counts = np.bincount([s.sample(logs(0.5, 0.3, 0.2)).id for _ in range(4000)], minlength=3)
    assert np.allclose(counts / 4000, [0.7, 0.0, 0.3], atol=0.03)


def test_dynamic_temperature_follows_the_entropy():
    # Of two tokens .8 .2 the entropy is .722 bits of 1: temperature .5 + 1 * .722^2 = 1.021
    p, kw = logs(0.8, 0.2), {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 2.0}
    token = sampler(2, logprobs=2, post_sampling=True, **kw).sample(p)
    share = 0.8 ** (1 / 1.0212) / (0.8 ** (1 / 1.0212) + 0.2 ** (1 / 1.0212))
    assert math.exp(dict(token.top)[0]) == pytest.approx(share, abs=1e-4)
    assert drawn(row(1, 1, 1), temperature=0.0, dynatemp_range=0.5) == {0, 1, 2}  # even: the upper end
    assert drawn(row(1, -INF), temperature=0.0, dynatemp_range=0.5) == {0}


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
def test_dry_costs_what_would_lengthen_a_repetition(history, kw, losses):
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
