"""Sampling parameters: how one token is chosen from a row of logits, their bounds, and which have no effect.

`engine.sampling.sampler.Sampler` runs these steps in this order. A step at its neutral value is skipped.

==  ======================  ===========================================================================
0   logit_bias              added to the logits; -inf bans
1   penalties               of tokens among the last `repeat_last_n` (prompt and generated): a positive logit
                            is divided by `repeat_penalty`, another multiplied (Keskar et al. 2019,
                            arXiv 1909.05858, with the usual correction for negative logits); then
                            minus `frequency_penalty` x count minus `presence_penalty`
2   bans                    end-of-generation tokens while `min_tokens` is not reached (then also
                            `stop_token_ids`) or with `ignore_eos`; tokens that the mask forbids
3   temperature 0           the greatest logit, among equals the lowest id; nothing below runs
4   mirostat 1 or 2         Basu et al. 2020, arXiv 2007.14966: temperature, truncation to the surprise
                            `mu`, draw, then mu -= eta x (surprise - tau); mu begins at 2 tau. Steps 5 to
                            11 do not run. Surprise is in bits, after truncation, as in llama.cpp
5   top_k                   the k most likely
6   tfs_z                   tail-free sampling (Brick 2019): of the sorted probabilities, those before
                            the absolute second differences, normalised, sum to more than z
7   typical_p               Meister et al. 2022, arXiv 2202.00666: those whose -log p lies nearest to the
                            entropy, until they sum to p
8   top_p                   Holtzman et al. 2019, arXiv 1904.09751: the most likely, until they sum to p
9   min_p                   Nguyen et al. 2024, arXiv 2407.01082: at least min_p x the greatest probability
10  top_a                   at least top_a x the square of the greatest probability
11  temperature             logits are divided by it; then one token is drawn
==  ======================  ===========================================================================

Truncation comes before temperature, and each step sees the probabilities renormalised over what the
steps before it left: the order of llama.cpp's default chain, as far as the steps exist there, so that
the same settings give the same behaviour. At least one candidate always remains. Among equal
probabilities the lower id counts as the more likely.

The draw for the i-th generated token depends on `seed` and i alone (see `uniform` in
kernels/sampling.h), never on other sessions or on how often a stream was interrupted.

Log-probabilities are natural logs of the softmax of the row as the model gave it, before step 0; with
`post_sampling` of the distribution that the token was drawn from, after step 11, without the tokens that the
steps removed.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.types import InferenceParameters

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 4096
MAX_STOP_TOKEN_IDS = 1024
MAX_SEED = 2**64 - 1
GREEDY_BELOW = 1e-5  # a temperature under this is 0: the division would only make infinities

_INT_MAX = 2**31 - 1
_BIAS_MAX = 1e6  # far beyond any logit, and still exact enough in float32

_INTS: dict[str, tuple[int, int]] = {
    "min_tokens": (0, _INT_MAX),
    "repeat_last_n": (-1, _INT_MAX),
    "mirostat": (0, 2),
    "top_k": (-1, _INT_MAX),
}
_FLOATS: dict[str, tuple[float, float]] = {
    "repeat_penalty": (0.001, 1000.0),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 10.0),
    "tfs_z": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "top_a": (0.0, 1.0),
    "temperature": (0.0, 100.0),
}
_OPTIONAL_INTS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, _INT_MAX),
    "logprobs": (0, MAX_LOGPROBS),
    "seed": (0, MAX_SEED),
}
_TRUNCATION = ("top_k", "tfs_z", "typical_p", "top_p", "min_p", "top_a")
_PENALTIES = ("repeat_penalty", "frequency_penalty", "presence_penalty")
_DEFAULTS = InferenceParameters()


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _int(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie between {low} and {high}, not {value}")
    return value


def _float(name: str, value: Any, low: float, high: float) -> float:
    if not _number(value):
        raise ConfigError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:  # also NaN
        raise ConfigError(f"{name} must lie between {low:g} and {high:g}, not {value}")
    return float(value)


def _ids(name: str, values: Iterable[Any], n_vocab: int, most: int) -> tuple[int, ...]:
    ids = tuple(values)
    if len(ids) > most:
        raise ConfigError(f"{name} may hold at most {most} entries, not {len(ids)}")
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < n_vocab:
            raise ConfigError(f"{name} must hold token ids from 0 to {n_vocab - 1}, not {token!r}")
    return ids


def _bias(bias: dict[int, float], n_vocab: int) -> dict[int, float]:
    _ids("logit_bias", bias, n_vocab, MAX_LOGIT_BIAS)
    for token, value in bias.items():
        if not _number(value) or not (abs(value) <= _BIAS_MAX or value == -math.inf):
            raise ConfigError(
                f"logit_bias of token {token} must lie between -{_BIAS_MAX:g} and {_BIAS_MAX:g}, "
                f"or be -inf to ban it, not {value!r}"
            )
    return {token: float(value) for token, value in bias.items()}


def is_greedy(params: InferenceParameters) -> bool:
    """Whether the most likely token is chosen without a draw."""
    return params.temperature < GREEDY_BELOW


def resolve_seed(seed: int | None) -> int:
    """The seed in effect: `seed`, or a random one that can be reported to the client."""
    return secrets.randbits(64) if seed is None else seed


def validate(params: InferenceParameters, n_vocab: int, n_ctx: int | None = None) -> InferenceParameters:
    """The same parameters with their types normalized and the seed resolved.

    Raises ConfigError, whose message begins with the field's name. n_ctx None: not known here.
    """
    fields: dict[str, Any] = {}
    for name, (low, high) in _INTS.items():
        fields[name] = _int(name, getattr(params, name), low, high)
    for name, (low, high) in _OPTIONAL_INTS.items():
        value = getattr(params, name)
        fields[name] = None if value is None else _int(name, value, low, high)
    for name, bounds in _FLOATS.items():
        fields[name] = _float(name, getattr(params, name), *bounds)
    for name in ("ignore_eos", "post_sampling"):
        if not isinstance(getattr(params, name), bool):
            raise ConfigError(f"{name} must be true or false, not {getattr(params, name)!r}")
    fields["stop_token_ids"] = _ids("stop_token_ids", params.stop_token_ids, n_vocab, MAX_STOP_TOKEN_IDS)
    fields["logit_bias"] = _bias(params.logit_bias, n_vocab)
    fields["top_k"] = max(fields["top_k"], 0)  # -1 means off elsewhere
    fields["seed"] = resolve_seed(fields["seed"])
    least, most = fields["min_tokens"], fields["max_tokens"]
    if most is not None and least > most:
        raise ConfigError(f"min_tokens must not exceed max_tokens: {least} > {most}")
    if n_ctx is not None and least > n_ctx:
        raise ConfigError(f"min_tokens must not exceed the context size: {least} > {n_ctx}")
    return msgspec.structs.replace(params, **fields)


def _set(params: InferenceParameters, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(params, name) != getattr(_DEFAULTS, name)]


def warnings(params: InferenceParameters) -> list[str]:
    """One line for each field that is set and has no effect."""
    idle: list[tuple[str, str]] = []
    if is_greedy(params):
        why = "temperature 0 takes the most likely token"
        idle += [(name, why) for name in _set(params, ("mirostat", *_TRUNCATION))]
    elif params.mirostat:
        idle += [(name, f"mirostat {params.mirostat} replaces it") for name in _set(params, _TRUNCATION)]
    if not params.mirostat:
        idle += [(name, "mirostat is off") for name in _set(params, ("mirostat_tau", "mirostat_eta"))]
    penalties = _set(params, _PENALTIES)
    if params.repeat_last_n == 0:
        idle += [(name, "repeat_last_n is 0") for name in penalties]
    elif not penalties:
        idle += [(name, "no penalty is set") for name in _set(params, ("repeat_last_n",))]
    if params.ignore_eos and params.min_tokens and not params.stop_token_ids:
        idle.append(("min_tokens", "ignore_eos bans the same tokens throughout"))
    return [f"{name} has no effect: {why}" for name, why in idle]
