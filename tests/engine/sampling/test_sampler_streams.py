"""Same seed, same text: whatever else runs, and however often a stream was interrupted."""

import threading

import numpy as np
import pytest

from engine.sampling.sampler import Sampler
from engine.types import InferenceParameters, Token
from support.references import sampling as reference

N_VOCAB = 700
EOG = (0, 1, 2)
PROMPT = [5, 9, 5, 600, 31]
MODES = {
    "greedy": {"temperature": 0.0, "repeat_penalty": 1.2, "repeat_last_n": 10},
    "plain": {},
    "truncated": {"top_k": 60, "tfs_z": 0.98, "typical_p": 0.95, "top_p": 0.9, "min_p": 0.01, "top_a": 0.01},
    "penalties": {
        "repeat_penalty": 1.1,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.2,
        "repeat_last_n": 12,
    },
    "whole session": {"frequency_penalty": 0.5, "repeat_last_n": -1},
    "ends": {"min_tokens": 25, "stop_token_ids": (3,), "logprobs": 2},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    "dry": {"dry_multiplier": 1.0, "dry_penalty_last_n": 20, "dry_allowed_length": 0},
    "whole session of dry": {"dry_multiplier": 1.0, "dry_penalty_last_n": -1, "dry_allowed_length": 1},
    "order": {
        "samplers": ("temperature", "dry", "top_p"),
        "top_p": 0.8,
        "dry_multiplier": 1.0,
        "temperature": 1.4,
    },
    "adaptive": {"adaptive_target": 0.2, "samplers": ("min_p", "adaptive_p"), "min_p": 0.01},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": 3.0, "presence_penalty": 0.5},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": 3.0, "temperature": 0.8},
}
TABLE = np.random.default_rng(0).normal(0, 3, (64, N_VOCAB)).astype(np.float32)


def logits_after(tokens: list[int]) -> np.ndarray:
    """A model with a memory of two tokens."""
    return TABLE[(tokens[-1] * 31 + tokens[-2]) % 64]


def parameters(mode: str, seed: int = 11) -> InferenceParameters:
    return InferenceParameters(seed=seed, **MODES[mode])


def generate(s: Sampler, n: int, tokens: list[int]) -> list[Token]:
    result = []
    for _ in range(n):
        result.append(s.sample(logits_after(tokens)))
        tokens.append(result[-1].id)
    return result


def whole(mode: str, seed: int = 11) -> list[Token]:
    return generate(Sampler(parameters(mode, seed), N_VOCAB, EOG, PROMPT), 60, list(PROMPT))


@pytest.mark.parametrize("mode", MODES)
def test_resumed_stream_equals_the_uninterrupted_one(mode):
    full = whole(mode)
    for cut in (1, 7, 24, 25, 59):
        history = PROMPT + [token.id for token in full[:cut]]
        resumed = Sampler(parameters(mode), N_VOCAB, EOG, history, cut, full[cut - 1].sampler_state)
        assert generate(resumed, 60 - cut, history) == full[cut:]


@pytest.mark.parametrize("mode", MODES)
def test_interleaved_streams_equal_each_alone(mode):
    seeds = range(5)
    samplers = [Sampler(parameters(mode, seed), N_VOCAB, EOG, PROMPT) for seed in seeds]
    tokens = [list(PROMPT) for _ in seeds]
    results = [[] for _ in seeds]
    for step in range(60):
        for i in sorted(seeds, key=lambda i: (i * 7 + step) % 5):
            results[i] += generate(samplers[i], 1, tokens[i])
    assert results == [whole(mode, seed) for seed in seeds]


def test_threads_do_not_disturb_each_other():
    logits = [np.random.default_rng(i).normal(0, 2, 50_000).astype(np.float32) for i in range(4)]
    params = InferenceParameters(seed=5, top_p=0.9, typical_p=0.95, presence_penalty=1.0, logprobs=3)

    def run(i: int) -> list[Token]:
        s = Sampler(params, 50_000, EOG)
        return [s.sample(logits[i]) for _ in range(25)]

    results: dict[int, list[Token]] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: run(i)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(4)] == [run(i) for i in range(4)]


def test_each_seed_gives_its_own_stream():
    texts = {seed: [t.id for t in whole("plain", seed)] for seed in (0, 1, 2, 2**32, 2**63, 2**64 - 1)}
    assert len({tuple(text) for text in texts.values()}) == 6
    # no stream is another one shifted
    draws = [reference.uniform(seed, i) for seed in range(50) for i in range(50)]
    assert len(set(draws)) == 2500
    unseeded = [Sampler(InferenceParameters(), N_VOCAB, EOG) for _ in range(3)]
    assert len({s.seed for s in unseeded}) == 3
    again = Sampler(InferenceParameters(seed=unseeded[0].seed), N_VOCAB, EOG)
    assert generate(again, 20, list(PROMPT)) == generate(unseeded[0], 20, list(PROMPT))


def test_reference_generator_gives_the_published_numbers():
    # The first outputs of SplitMix64 seeded with 1234567, as its authors' C code gives them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [reference.splitmix((1234567 + i * reference.GOLDEN) % 2**64) for i in range(4)] == published


def test_sampler_reports_its_counts_and_seed():
    s = Sampler(parameters("plain"), N_VOCAB, EOG, PROMPT, n_generated=3)
    generate(s, 4, list(PROMPT))
    assert (s.n_generated, s.n_vocab, s.seed) == (7, N_VOCAB, 11)
