"""Bounds of the sampling parameters, and which of them change nothing."""

import math
import subprocess
import sys

import msgspec
import pytest

from engine.errors import ConfigError
from engine.sampling import parameters as sampling
from engine.types import InferenceParameters

N_VOCAB, N_CTX = 100, 512
NAN, INF = math.nan, math.inf


def validate(**fields) -> InferenceParameters:
    return sampling.validate(InferenceParameters(**fields), N_VOCAB, N_CTX)


def test_defaults_are_valid_and_get_a_seed():
    seeds = {validate().seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert msgspec.structs.replace(validate(), seed=None) == InferenceParameters()


PROBABILITIES = ("tfs_z", "typical_p", "top_p", "min_p", "top_a")
GOOD = {
    "max_tokens": (1, 10**9, None),
    "min_tokens": (0, 512),
    "ignore_eos": (True, False),
    "post_sampling": (True, False),
    "stop_token_ids": ((), (0, 99)),
    "logprobs": (None, 0, 20),
    "seed": (0, 2**64 - 1),
    "logit_bias": ({0: -INF, 99: 100.0}, {5: 3}),
    "repeat_penalty": (0.001, 1, 1000.0),
    "frequency_penalty": (-100, 2.0),
    "presence_penalty": (-2.0, 100),
    "repeat_last_n": (-1, 0, 2**31 - 1),
    "mirostat": (0, 1, 2),
    "mirostat_tau": (0, 100.0),
    "mirostat_eta": (0, 10.0),
    "top_k": (0, 10**9),
    **dict.fromkeys(PROBABILITIES, (0, 0.5, 1.0)),
    "temperature": (0, 1e-9, 2, 100.0),
    "dynatemp_range": (0, 100.0),
    "dynatemp_exponent": (0, 100.0),
    "dry_multiplier": (-100.0, 0, 100.0),
    "dry_base": (1, 1e6),
    "dry_allowed_length": (0, 2**31 - 1),
    "dry_penalty_last_n": (-1, 0, 2**31 - 1),
    "dry_sequence_breakers": ((), ("a", "é" * 20)),
    "top_n_sigma": (-1, 0, 1000.0),
    "xtc_probability": (0, 1.0),
    "xtc_threshold": (0, 1.0),
    "adaptive_target": (-1, 1.0),
    "adaptive_decay": (0, 0.99),
    "min_keep": (0, 2**31 - 1),
    "samplers": ((), ("top_k", "top_k", "adaptive_p")),
}
BAD = {
    "max_tokens": (0, -1, 2**31, 1.0, "1", True),
    "min_tokens": (-1, 513, 1.5, None),
    "ignore_eos": (1, None, "yes"),
    "post_sampling": (1, None, "yes"),
    "stop_token_ids": ((100,), (-1,), (1.0,), (True,), tuple(range(50)) * 21),
    "logprobs": (-1, 21, 1.0, True),
    "seed": (-1, 2**64, 1.5, "7", False),
    "logit_bias": (
        {100: 1.0}, {-1: 1.0}, {"1": 1.0}, {1: NAN}, {1: INF}, {1: 1e7}, {1: None}, {1: True},
        dict.fromkeys(range(5000), 1.0),
    ),
    "repeat_penalty": (0, -1.0, 1001.0, NAN, INF, "1", None, True),
    "frequency_penalty": (-101, 101, NAN, INF, -INF),
    "presence_penalty": (-101, 101, NAN, INF, -INF),
    "repeat_last_n": (-2, 2**31, 1.0, NAN),
    "mirostat": (-1, 3, 1.0, True),
    "mirostat_tau": (-1, 101, NAN, INF),
    "mirostat_eta": (-0.1, 11, NAN, INF),
    "top_k": (-2, 2**31, 0.5, NAN, None),
    **dict.fromkeys(PROBABILITIES, (-0.1, 1.01, NAN, INF, -INF, "1", None)),
    "temperature": (-0.1, 101, NAN, INF, "hot", None, False),
    "dynatemp_range": (-0.1, 101, NAN, INF),
    "dynatemp_exponent": (-0.1, 101, NAN, INF),
    "dry_multiplier": (-101, 101, NAN, INF),
    "dry_base": (0.99, 1e7, NAN, INF),
    "dry_allowed_length": (-1, 2**31, 1.5),
    "dry_penalty_last_n": (-2, 2**31, 1.5),
    "dry_sequence_breakers": (("",), ("é" * 21,), (5,), "abc", ("a",) * 33),
    "top_n_sigma": (-1.1, 1001, NAN, INF),
    "xtc_probability": (-0.1, 1.1, NAN),
    "xtc_threshold": (-0.1, 1.1, NAN),
    "adaptive_target": (-1.1, 1.1, NAN),
    "adaptive_decay": (-0.1, 1.0, NAN),
    "min_keep": (-1, 2**31, 1.5),
    "samplers": (("magic",), ("k",), (5,), "top_k", ("top_k",) * 17),
}  # fmt: skip


def test_every_field_has_a_test_case():
    names = {field.name for field in msgspec.structs.fields(InferenceParameters)}
    assert set(GOOD) == set(BAD) == names


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in GOOD.items() for v in values])
def test_valid_value_is_accepted(name, value):
    assert getattr(validate(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in BAD.items() for v in values])
def test_invalid_value_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"^{name} (must|may|of token)"):
        validate(**{name: value})


def test_contradictory_values_are_refused():
    with pytest.raises(ConfigError, match="min_tokens must not exceed max_tokens: 9 > 8"):
        validate(min_tokens=9, max_tokens=8)
    with pytest.raises(ConfigError, match="min_tokens must not exceed the context size: 600 > 512"):
        validate(min_tokens=600)
    assert sampling.validate(InferenceParameters(min_tokens=600), N_VOCAB).min_tokens == 600


def test_types_are_normalized():
    p = validate(temperature=0, top_k=-1, stop_token_ids=[1, 2], logit_bias={3: 1})
    assert isinstance(p.temperature, float)
    assert p.top_k == 0  # -1 means off elsewhere
    assert p.stop_token_ids == (1, 2)
    assert isinstance(p.logit_bias[3], float)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(p), type=InferenceParameters) == p


def idle(**fields) -> list[str]:
    """Names in the warnings."""
    lines = sampling.warnings(InferenceParameters(**fields))
    assert all(" has no effect: " in line for line in lines)
    return [line.split()[0] for line in lines]


def test_warnings_name_what_has_no_effect():
    assert idle() == []
    assert idle(temperature=0.7, top_p=0.9, top_k=40, seed=1, repeat_penalty=1.1, repeat_last_n=5) == []
    assert idle(temperature=0.0, top_p=0.9, top_k=40, min_p=0.05) == ["top_k", "top_p", "min_p"]
    assert idle(temperature=0.0, mirostat=2) == ["mirostat"]
    assert idle(mirostat=2, mirostat_tau=3.0, top_p=0.9, tfs_z=0.9) == ["tfs_z", "top_p"]
    assert idle(mirostat_tau=3.0, mirostat_eta=0.2) == ["mirostat_tau", "mirostat_eta"]
    assert idle(repeat_last_n=0, repeat_penalty=1.1, presence_penalty=1.0) == [
        "repeat_penalty",
        "presence_penalty",
    ]
    assert idle(repeat_last_n=128) == ["repeat_last_n"]
    unused = {"dry_base": 2.0, "xtc_threshold": 0.2, "dynatemp_exponent": 2.0, "adaptive_decay": 0.5}
    assert set(idle(**unused)) == set(unused)
    assert idle(dry_multiplier=0.8, dry_penalty_last_n=0) == ["dry_multiplier"]
    assert idle(xtc_probability=0.5, xtc_threshold=0.6) == ["xtc_probability"]
    assert idle(adaptive_target=0.5) == ["adaptive_target"]
    assert idle(samplers=("adaptive_p",), adaptive_target=0.5, dry_multiplier=1.0, temperature=0.5) == [
        "dry_multiplier",
        "temperature",
    ]
    assert idle(mirostat=1, dynatemp_range=0.5, top_n_sigma=1.0, dry_multiplier=1.0) == [
        "top_n_sigma",
        "dynatemp_range",
    ]
    assert idle(ignore_eos=True, min_tokens=5) == ["min_tokens"]
    assert idle(ignore_eos=True, min_tokens=5, stop_token_ids=(1,)) == []


def test_temperature_below_the_threshold_is_greedy():
    assert sampling.is_greedy(InferenceParameters(temperature=0.0))
    assert sampling.is_greedy(InferenceParameters(temperature=9e-6))
    assert not sampling.is_greedy(InferenceParameters(temperature=1e-5))


@pytest.mark.parametrize(
    ("fields", "greedy"),
    [
        ({"top_k": 40, "min_p": 0.1, "dry_multiplier": 1.0, "presence_penalty": 1.0}, True),
        ({"typical_p": 0.9}, False),
        ({"xtc_probability": 0.5}, False),
        ({"dynatemp_range": 0.5}, False),
        ({"samplers": ("top_k",)}, False),
        ({"samplers": ("top_k", "dry", "temperature"), "top_k": 5, "dry_multiplier": 1.0}, False),
        ({"samplers": ("top_k", "dry", "temperature"), "dry_multiplier": 1.0}, True),
        ({"samplers": ("temperature", "xtc"), "xtc_probability": 0.5}, True),
        ({"samplers": (), "mirostat": 2}, True),
    ],
)
def test_temperature_0_takes_the_greatest_logit_unless_another_step_may_remove_it(fields, greedy):
    assert sampling.is_greedy(InferenceParameters(temperature=0.0, **fields)) == greedy


def test_parameters_import_no_compiled_module():
    code = (
        "import sys, engine.sampling.parameters\n"
        "print([m for m in sys.modules if m in ('engine.sampling.sampler', 'numpy')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
