"""Sampling parameters: how one token is chosen from a row of logits, their bounds, and which have no effect.

`engine.sampling.sampler.Sampler` first edits the row: `logit_bias` is added (-inf bans), end-of-generation
tokens are banned while `min_tokens` is not reached (then also `stop_token_ids`) or with `ignore_eos`, and so
is what the mask forbids. Then it takes the steps that `samplers` lists, in that order, and draws a token. A
step at its neutral value is skipped. The default order:

===========  ==========================================================================================
penalties    of tokens among the last `repeat_last_n` (prompt and generated): a positive logit is divided
             by `repeat_penalty`, another multiplied (Keskar et al. 2019, arXiv 1909.05858, with the usual
             correction for negative logits); then minus `frequency_penalty` x count minus
             `presence_penalty`
dry          of tokens that would lengthen a repetition of m >= `dry_allowed_length` tokens among the last
             `dry_penalty_last_n`: minus `dry_multiplier` x `dry_base` ^ (m - `dry_allowed_length`). A
             repetition ends at a sequence breaker (kernels/repetition.h, engine.sampling.dry_breakers)
top_n_sigma  Tang et al. 2024, arXiv 2411.07641: logits within n standard deviations of the greatest
top_k        the k most likely
tfs_z        tail-free sampling (Brick 2019): of the sorted probabilities, those before the absolute second
             differences, normalised, sum to more than z
typ_p        `typical_p`, Meister et al. 2022, arXiv 2202.00666: those whose -log p lies nearest to the
             entropy, until they sum to p
top_p        Holtzman et al. 2019, arXiv 1904.09751: the most likely, until they sum to p
min_p        Nguyen et al. 2024, arXiv 2407.01082: at least min_p x the greatest probability
top_a        at least top_a x the square of the greatest probability
xtc          exclude top choices (p-e-w 2024, text-generation-webui pull 6335): with `xtc_probability`, of
             the tokens with at least `xtc_threshold` all but the least likely are removed. Off above 0.5
temperature  logits are divided by it; 0: the greatest one remains, among equals the lowest id. With
             `dynatemp_range` r it lies between temperature - r (at least 0) and temperature + r, by
             (entropy / log of the number of candidates) ^ `dynatemp_exponent`
===========  ==========================================================================================

`adaptive_p`, where it is listed, replaces the draw (llama.cpp pull 17927): it prefers probabilities near a
target, which is 2 `adaptive_target` minus the average, with `adaptive_decay`, of the probabilities that the
tokens so far had.

`mirostat` 1 or 2 (Basu et al. 2020, arXiv 2007.14966) replaces all steps but penalties and dry: temperature,
truncation to the surprise `mu`, draw, then mu -= eta x (surprise - tau); mu begins at 2 tau. Surprise is in
bits, after truncation, as in llama.cpp.

The steps and their order are llama.cpp's, and tfs_z and top_a, so that the same settings give the same
behaviour. Each step sees the probabilities renormalised over what the steps before it left. At least one
candidate always remains, and at least `min_keep` after typ_p, top_p, min_p and xtc. Among equal probabilities
the lower id counts as the more likely. Otherwise than in llama.cpp, penalties and dry hold for mirostat, too,
and dynatemp counts only candidates that are left, also after top_n_sigma.

The draw for the i-th generated token depends on `seed` and i alone (see `uniform` in kernels/sampling.h), and
so does whether xtc removes something: never on other sessions or on how often a stream was interrupted.

Log-probabilities are natural logs of the softmax of the row as the model gave it, before any edit; with
`post_sampling` of the distribution that the token was drawn from, without the tokens that the steps removed.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.sampling.llama_cpp import STEPS
from engine.types import InferenceParameters

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 4096
MAX_STOP_TOKEN_IDS = 1024
MAX_SAMPLERS = 16  # there are 12; each may take milliseconds of a large vocabulary, and all streams wait
MAX_BREAKERS, MAX_BREAKER_BYTES = 32, 40
MAX_SEED = 2**64 - 1
GREEDY_BELOW = 1e-5  # a temperature under this is 0: the division would only make infinities

_INT_MAX = 2**31 - 1
_BIAS_MAX = 1e6  # far beyond any logit, and still exact enough in float32

_INTS: dict[str, tuple[int, int]] = {
    "min_tokens": (0, _INT_MAX),
    "repeat_last_n": (-1, _INT_MAX),
    "mirostat": (0, 2),
    "top_k": (-1, _INT_MAX),
    "min_keep": (0, _INT_MAX),
    "dry_allowed_length": (0, _INT_MAX),
    "dry_penalty_last_n": (-1, _INT_MAX),
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
    "dry_multiplier": (-100.0, 100.0),
    "dry_base": (1.0, 1e6),
    "top_n_sigma": (-1.0, 1000.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dynatemp_range": (0.0, 100.0),
    "dynatemp_exponent": (0.0, 100.0),
    "adaptive_target": (-1.0, 1.0),
    "adaptive_decay": (0.0, 0.99),
}
_OPTIONAL_INTS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, _INT_MAX),
    "logprobs": (0, MAX_LOGPROBS),
    "seed": (0, MAX_SEED),
}
REPETITION = ("penalties", "dry")  # steps that look at the tokens so far
_DROPS_THE_BEST = ("typ_p", "xtc", *REPETITION)
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


def active_steps(params: InferenceParameters) -> list[str]:
    """The steps that `samplers` lists and that change something, in order."""
    p = params
    is_active = {
        "penalties": p.repeat_last_n != 0 and bool(_set(p, STEPS["penalties"][:3])),
        "dry": p.dry_multiplier != 0 and p.dry_penalty_last_n != 0,
        "top_n_sigma": p.top_n_sigma > 0,
        "top_k": p.top_k > 0,
        "tfs_z": p.tfs_z < 1,
        "typ_p": p.typical_p < 1,
        "top_p": p.top_p < 1,
        "min_p": p.min_p > 0,
        "top_a": p.top_a > 0,
        "xtc": p.xtc_probability > 0 and p.xtc_threshold <= 0.5,
        "temperature": p.temperature != 1 or p.dynatemp_range > 0,
        "adaptive_p": False,  # no step
    }
    return [name for name in p.samplers if is_active[name] and (not p.mirostat or name in REPETITION)]


def is_greedy(params: InferenceParameters) -> bool:
    """Whether the largest of the edited logits is chosen, without a draw."""
    if params.temperature >= GREEDY_BELOW or params.mirostat:
        return params.temperature < GREEDY_BELOW
    edits = True  # penalties and DRY before all other steps
    for step in active_steps(params):
        if step == "temperature":
            return params.dynatemp_range == 0
        edits = edits and step in REPETITION
        if step in _DROPS_THE_BEST and not edits:
            return False
    return False


def is_adaptive(params: InferenceParameters) -> bool:
    """Whether adaptive-p draws the token."""
    return params.adaptive_target >= 0 and "adaptive_p" in params.samplers and not params.mirostat


def _names(name: str, values: Any, most: int) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{name} must be a list of texts")
    if len(values) > most:
        raise ConfigError(f"{name} may hold at most {most} entries, not {len(values)}")
    return tuple(values)


def _breakers(values: Any) -> tuple[str, ...]:
    texts = _names("dry_sequence_breakers", values, MAX_BREAKERS)
    for text in texts:
        if not 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_BREAKER_BYTES:
            raise ConfigError(
                f"dry_sequence_breakers must be texts of 1 to {MAX_BREAKER_BYTES} bytes, not {text[:64]!r}"
            )
    return texts


def resolve_seed(seed: int | None) -> int:
    """The seed in effect: `seed`, or a random one that can be reported to the client."""
    return secrets.randbits(64) if seed is None else seed


def validate(params: InferenceParameters, n_vocab: int, n_ctx: int | None = None) -> InferenceParameters:
    """The same parameters with normalized types and a resolved seed.

    Raises ConfigError, whose message begins with the field's name. n_ctx None: unknown here.
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
    fields["samplers"] = _names("samplers", params.samplers, MAX_SAMPLERS)
    if unknown := set(fields["samplers"]) - set(STEPS):
        raise ConfigError(f"samplers must be names of {', '.join(STEPS)}, not {sorted(unknown)[0][:64]!r}")
    fields["dry_sequence_breakers"] = _breakers(params.dry_sequence_breakers)
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
    """One line for each field that is set but has no effect."""
    p, idle = params, dict[str, str]()
    for step, fields in STEPS.items():
        why = None
        if p.mirostat and step not in REPETITION and step != "temperature":
            why = f"mirostat {p.mirostat} replaces it"
        elif step not in p.samplers and not (p.mirostat and step == "temperature"):
            why = "samplers leaves its step out"
        elif is_greedy(p) and step not in (*REPETITION, "temperature"):
            why = "temperature 0 takes the most likely token"
        if why is not None:
            idle |= dict.fromkeys(_set(p, fields), why)
    if is_greedy(p):
        idle |= dict.fromkeys(_set(p, ("mirostat",)), "temperature 0 takes the most likely token")
    for name, is_off, why in (
        ("mirostat_tau", not p.mirostat, "mirostat is off"),
        ("mirostat_eta", not p.mirostat, "mirostat is off"),
        ("dynatemp_range", p.mirostat, f"mirostat {p.mirostat} replaces it"),
        ("dynatemp_exponent", p.dynatemp_range == 0 or p.mirostat, "there is no dynamic temperature"),
        ("xtc_probability", p.xtc_threshold > 0.5, "xtc_threshold is above 0.5"),
        ("xtc_threshold", p.xtc_probability == 0, "xtc_probability is 0"),
        ("adaptive_decay", p.adaptive_target < 0, "adaptive_target is below 0"),
        ("dry_multiplier", p.dry_penalty_last_n == 0, "dry_penalty_last_n is 0"),
        *((name, p.dry_multiplier == 0, "dry_multiplier is 0") for name in STEPS["dry"][1:]),
        *((name, p.repeat_last_n == 0, "repeat_last_n is 0") for name in STEPS["penalties"][:3]),
        ("repeat_last_n", p.repeat_last_n and not _set(p, STEPS["penalties"][:3]), "no penalty is set"),
    ):
        if is_off and _set(p, (name,)):
            idle.setdefault(name, why)
    if p.ignore_eos and p.min_tokens and not p.stop_token_ids:
        idle["min_tokens"] = "ignore_eos bans the same tokens throughout"
    return [f"{name} has no effect: {why}" for name, why in idle.items()]
