"""The sampler against a slow reference of the complete chain, on any sizes and mixtures of parameters."""

import math
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.sampling.sampler import Sampler
from engine.types import InferenceParameters
from support.quick import every, examples, matrix
from support.references import sampling as reference

STEPS = InferenceParameters().samplers
CLOSE = 1e-5  # relative; nearer to a threshold than that, float32 may decide otherwise


def off_or(off: float, low: float, high: float) -> st.SearchStrategy[float]:
    return st.just(off) | st.floats(low, high)


PARAMETERS = st.fixed_dictionaries(
    {
        "top_k": st.just(0) | st.integers(1, 40),
        "tfs_z": off_or(1.0, 0.05, 0.99),
        "typical_p": off_or(1.0, 0.05, 0.99),
        "top_p": off_or(1.0, 0.01, 0.999),
        "min_p": off_or(0.0, 0.001, 0.9),
        "top_a": off_or(0.0, 0.001, 0.9),
        "top_n_sigma": off_or(-1.0, 0.1, 5.0),
        "xtc_probability": st.sampled_from([0.0, 0.5, 1.0]),
        "xtc_threshold": st.floats(0.001, 0.6),
        "temperature": st.floats(0.05, 5.0) | st.just(0.0),
        "dynatemp_range": off_or(0.0, 0.05, 3.0),
        "dynatemp_exponent": st.floats(0.1, 3.0),
        "min_keep": st.sampled_from([0, 0, 1, 5]),
        "repeat_penalty": off_or(1.0, 0.5, 2.0),
        "frequency_penalty": off_or(0.0, -1.0, 1.0),
        "presence_penalty": off_or(0.0, -1.0, 1.0),
        "repeat_last_n": st.sampled_from([-1, 0, 1, 7, 64]),
        "dry_multiplier": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "dry_base": st.sampled_from([1.0, 1.75]),
        "dry_allowed_length": st.integers(0, 3),
        "dry_penalty_last_n": st.sampled_from([-1, 0, 1, 9, 64]),
        "seed": st.integers(0, 2**64 - 1),
        "ignore_eos": st.booleans(),
        "samplers": st.just(STEPS) | st.permutations(STEPS) | st.lists(st.sampled_from(STEPS), max_size=8),
    }
)
# A coarse grid, so that equal logits are common and unequal ones clearly so.
LOGIT = st.integers(-640, 640).map(lambda n: n / 64) | st.just(-math.inf)


class Case(NamedTuple):
    logits: np.ndarray
    p: InferenceParameters
    history: list[int]
    breakers: list[list[int]]
    eog: frozenset[int]
    n: int

    def sampler(self) -> Sampler:
        sampler = Sampler(self.p, len(self.logits), self.eog, self.history, self.n)
        sampler.break_repetitions(self.breakers)
        return sampler

    def reference(self, nudge: float = 0.0) -> reference.Chain:
        chance = reference.uniform(reference.splitmix(self.p.seed), self.n)
        x = reference.edited(self.logits, self.p, self.eog, self.n)
        return reference.Chain(x, self.p, nudge, chance=chance).run(self.history, self.breakers)


@st.composite
def cases(draw):
    logits = np.array(draw(st.lists(LOGIT, min_size=1, max_size=300)), dtype=np.float32)
    token = st.integers(0, len(logits) - 1)
    few = st.integers(0, min(3, len(logits) - 1))  # so that texts repeat
    repeated = st.tuples(st.lists(few, min_size=1, max_size=6), st.integers(2, 8)).map(lambda t: t[0] * t[1])
    params = draw(PARAMETERS)
    params["logit_bias"] = draw(
        st.dictionaries(token, st.sampled_from([-math.inf, -2.5, 1.0, 4.0]), max_size=5)
    )
    params["samplers"] = tuple(params["samplers"])
    case = Case(
        logits,
        InferenceParameters(**params),
        draw(st.lists(token, max_size=80) | st.lists(few, max_size=80) | repeated),
        draw(st.lists(st.lists(few, min_size=1, max_size=3), max_size=2)),
        draw(st.frozensets(token, max_size=3)),
        draw(st.integers(0, 1000)),
    )
    assume(np.isfinite(reference.edited(logits, case.p, case.eog, case.n)).any())
    return case


@examples(400)
@given(cases())
def test_token_equals_the_references(case):
    chains = [case.reference(nudge) for nudge in (0.0, -CLOSE, CLOSE)]
    assume(chains[0].ids == chains[1].ids == chains[2].ids)  # else a threshold is a close call
    chain, u = chains[0], reference.uniform(case.p.seed, case.n)
    us = (min(max(u + d, 0.0), 1 - 2**-53) for d in (-CLOSE, 0.0, CLOSE))
    token = case.sampler().sample(case.logits)
    assert token.id in chain.ids
    assert token.id in {reference.draw(chain.x, chain.ids, v) for v in us}


@examples(150)
@given(cases())
def test_probabilities_equal_the_references(case):
    chains = [case.reference(nudge) for nudge in (0.0, -CLOSE, CLOSE)]
    assume(chains[0].ids == chains[1].ids == chains[2].ids)
    p = msgspec.structs.replace(case.p, logprobs=20, post_sampling=True)
    token = case._replace(p=p).sampler().sample(case.logits)
    weights = reference.softmax(chains[0].x[chains[0].ids])
    for id, logprob in token.top:
        assert math.exp(logprob) == pytest.approx(weights[chains[0].ids.index(id)], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_dry_penalty_matches_the_definition(seed):
    rng, logits = np.random.default_rng(seed), np.zeros(6, np.float32)
    longest = 0
    for _ in range(300):
        pattern = rng.integers(0, 6, rng.integers(1, 12)).tolist()
        history = rng.integers(0, 6, rng.integers(0, 20)).tolist() + pattern * int(rng.integers(1, 5))
        history += pattern[: int(rng.integers(0, len(pattern)))]
        p = InferenceParameters(
            dry_multiplier=0.1,
            dry_base=1.2,
            dry_allowed_length=int(rng.integers(0, 5)),
            dry_penalty_last_n=int(rng.choice([-1, 2, 10, 30])),
            logprobs=6,
            post_sampling=True,
        )
        breakers = [rng.integers(0, 6, rng.integers(1, 4)).tolist() for _ in range(rng.integers(0, 3))]
        x = reference.dry(logits, p, history, breakers)
        token = Case(logits, p, history, breakers, frozenset(), 0).sampler().sample(logits)
        assert [lp for _, lp in sorted(token.top)] == pytest.approx(reference.log_softmax(x), abs=1e-4)
        longest = max(longest, -x.min())
    assert longest > 0.1 * 1.2**10  # a repetition of more than ten tokens


@examples(150)
@given(cases(), st.data())
def test_banned_token_is_never_sampled(case, data):
    logits = case.logits
    words = (len(logits) + 31) // 32
    mask = np.array(data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=words, max_size=words)), np.uint32)
    allowed = [i for i in range(len(logits)) if mask[i // 32] >> np.uint32(i % 32) & 1]
    x = reference.edited(logits, case.p, case.eog, case.n)
    possible = {i for i in allowed if x[i] > -math.inf}
    assume(possible)
    assert case.sampler().sample(logits, mask).id in possible
    greedy = Sampler(InferenceParameters(temperature=0.0, ignore_eos=True), len(logits), case.eog)
    if open_ := [i for i in allowed if i not in case.eog and logits[i] > -math.inf]:
        assert greedy.sample(logits, mask).id == max(open_, key=lambda i: (logits[i], -i))


@examples(100)
@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=500), st.integers(0, 20))
def test_logprobs_are_log_softmax(values, n):
    logits = np.array(values, dtype=np.float32)
    token = Sampler(InferenceParameters(logprobs=n, seed=1), len(logits), ()).sample(logits)
    logprobs = reference.log_softmax(logits)
    assert token.logprob == pytest.approx(logprobs[token.id], abs=1e-5, rel=1e-6)
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    assert [i for i, _ in token.top] == order[:n]
    assert [lp for _, lp in token.top] == pytest.approx(logprobs[order[:n]], abs=1e-5, rel=1e-6)


# ---- large vocabularies, where blocks, histogram and radix sort come in ----


def rows(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    normal = rng.normal(0, 2.3, n)
    peaked = normal.copy()
    peaked[rng.permutation(n)[: min(300, n)]] = 18 - 1.4 * np.log(np.arange(1, min(300, n) + 1))
    outlier = normal.copy()
    outlier[n // 2] = 1000
    return {
        "normal": normal,
        "peaked": peaked,
        "flat": rng.normal(0, 0.01, n),
        "equal": np.full(n, 1.5),
        "steps": rng.integers(-3, 4, n).astype(float),
        "outlier": outlier,
        "rare": np.where(rng.random(n) < 0.98, -np.inf, normal),
        "ascending": np.linspace(-20, 5, n),
    }


SETTINGS = [
    {},
    {"temperature": 0.3},
    {"top_k": 1},
    {"top_k": 40, "top_p": 0.9},
    {"top_k": 3000, "min_p": 0.02},
    {"top_p": 0.05},
    {"top_p": 0.51},
    {"top_p": 0.9, "temperature": 1.7},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"top_a": 0.3},
    {"typical_p": 0.2},
    {"typical_p": 0.9, "top_p": 0.8},
    {"tfs_z": 0.4},
    {"tfs_z": 0.97, "top_p": 0.93},
    {"top_k": 20, "tfs_z": 0.8},
    {"tfs_z": 0.9, "typical_p": 0.6},
    {"top_p": 0.6, "min_p": 0.1},
    {"min_p": 0.05, "top_a": 0.3},
    {"top_n_sigma": 1.0},
    {"top_n_sigma": 2.5, "min_p": 0.01},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"dynatemp_range": 0.9, "temperature": 1.0},
    {"min_keep": 70, "top_p": 0.1, "typical_p": 0.1},
    {"temperature": 1.5, "samplers": ("temperature", "top_p"), "top_p": 0.9},
    {"top_k": 500, "tfs_z": 0.9, "typical_p": 0.7, "top_p": 0.93, "min_p": 0.01, "top_a": 0.01},
]


@pytest.mark.parametrize("n", matrix([1, 2, 63, 64, 65, 300, 1023, 1025, 4100, 9001], (65,).__contains__))
def test_large_rows_match_the_reference(n):
    compared = 0
    for kind, values in rows(n).items():
        logits = values.astype(np.float32)
        if not np.isfinite(logits).any():
            continue
        for i, given_params in enumerate(SETTINGS):
            p = InferenceParameters(seed=n, **given_params)
            chains = [reference.Chain(logits, p, nudge, chance=0).run() for nudge in (0.0, -CLOSE, CLOSE)]
            if not chains[0].ids == chains[1].ids == chains[2].ids:
                continue  # a close call
            s = Sampler(p, n, (), n_generated=i)
            for k in range(i, i + 2):
                u = reference.uniform(n, k)
                tokens = {reference.draw(chains[0].x, chains[0].ids, u + d) for d in (-CLOSE, 0, CLOSE)}
                assert s.sample(logits).id in tokens, (kind, given_params)
                compared += 1
    assert compared > 220


@pytest.mark.parametrize("n", [1, 64, 65, 4099, 128_256, 200_000])
def test_greedy_and_logprobs_are_right_for_any_vocabulary_size(n):
    rng = np.random.default_rng(n)
    logits = rng.integers(-40, 40, n).astype(np.float32) / 4  # many equals
    token = Sampler(InferenceParameters(temperature=0.0, logprobs=5), n, ()).sample(logits)
    logprobs = reference.log_softmax(logits)
    assert token.id == int(np.argmax(logits))
    assert token.logprob == pytest.approx(logprobs[token.id], abs=1e-5)
    order = np.lexsort((np.arange(n), -logits))[:5]
    assert [i for i, _ in token.top] == order.tolist()


def test_penalties_over_a_long_session_match_the_reference():
    # More distinct tokens than blocks of the row: every block maximum is made anew.
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 3000).astype(np.float32)
    history = rng.integers(0, 3000, 2500).tolist()
    for p in (
        InferenceParameters(temperature=0.0, repeat_penalty=1.3, repeat_last_n=-1),
        InferenceParameters(temperature=0.0, frequency_penalty=0.7, repeat_last_n=1000),
        InferenceParameters(temperature=0.0, presence_penalty=2.0, repeat_last_n=20),
    ):
        s, tokens = Sampler(p, 3000, (), history), list(history)
        for _ in range(100):
            x = reference.penalised(logits.astype(np.float64), p, tokens)
            tokens.append(s.sample(logits).id)
            assert x[tokens[-1]] == pytest.approx(x.max(), abs=1e-5)


# ---- mirostat ----


@pytest.mark.parametrize("version", every(2, [1, 2]))
@pytest.mark.parametrize("temperature", matrix([0.7, 1.0, 1.6], lambda temperature: temperature == 0.7))
def test_mirostat_follows_the_reference(version, temperature):
    rng = np.random.default_rng(version)
    p = InferenceParameters(
        mirostat=version, mirostat_tau=4.0, mirostat_eta=0.2, temperature=temperature, seed=2**63 + version
    )
    s, mu, compared = Sampler(p, 2000, ()), 8.0, 0
    for i in range(150):
        logits = rng.normal(0, 3, 2000).astype(np.float32)
        x = logits.astype(np.float64) / temperature
        ids = reference.mirostat(x, p, mu)
        token = s.sample(logits)
        if ids == reference.mirostat(x, p, mu + CLOSE) == reference.mirostat(x, p, mu - CLOSE):
            u = reference.uniform(p.seed, i)
            assert token.id in {reference.draw(x, ids, u + d) for d in (-CLOSE, 0, CLOSE)}
            surprise = -math.log2(reference.softmax(x[ids])[ids.index(token.id)])
            assert token.sampler_state == pytest.approx(mu - 0.2 * (surprise - 4.0), abs=1e-4)
            compared += 1
        mu = token.sampler_state
    assert compared > 100


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [2.0, 4.0, 6.0])
def test_mirostat_converges_to_tau(version, tau):
    # Zipf's law with slope 1.1 over 5000 tokens: more than 8 bits of entropy unless held back
    logits = (-1.1 * np.log(np.arange(1, 5001))).astype(np.float32)
    s = Sampler(InferenceParameters(mirostat=version, mirostat_tau=tau, seed=3), 5000, ())
    mus = np.array([s.state, *(s.sample(logits).sampler_state for _ in range(1500))])
    surprise = tau - np.diff(mus) / 0.1
    assert surprise[500:].mean() == pytest.approx(tau, abs=0.2)


def test_mirostat_1_with_equal_tokens_or_a_single_one_samples():
    p = InferenceParameters(mirostat=1, seed=1)
    assert Sampler(p, 50, ()).sample(np.zeros(50, np.float32)).sampler_state is not None
    assert Sampler(p, 1, ()).sample(np.zeros(1, np.float32)).id == 0
    only = np.full(50, -np.inf, np.float32)
    only[9] = 1
    assert Sampler(p, 50, ()).sample(only).id == 9
