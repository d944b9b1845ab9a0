"""`generation_settings`: what is in force for a sequence, by llama-server's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Constraint, InferenceParameters

# What llama-server samples with when it is told nothing.
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
# Its steps, in the order in which they run, here as there; our parameters of each with neutral values.
STEPS: dict[str, dict[str, Any]] = {
    "penalties": {"repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0},
    "top_k": {"top_k": 0},
    "typ_p": {"typical_p": 1.0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "temperature": {"temperature": 1.0},
}
_ABSENT = {
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "top_n_sigma": -1.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": -1,
    "dry_sequence_breakers": [],
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "n_keep": 0,
    "n_discard": 0,
    "min_keep": 0,
    "grammar_lazy": False,
    "grammar_triggers": [],
    "preserved_tokens": [],
    "chat_format": "Content-only",
    "reasoning_format": "none",
    "reasoning_in_content": False,
    "generation_prompt": "",
    "speculative.types": "none",
    "backend_sampling": False,
    "lora": [],
}
_SAME = [
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "ignore_eos",
]


def settings(
    params: InferenceParameters,
    *,
    stop: Sequence[str] = (),
    stream: bool = False,
    constraint: Constraint | None = None,
    eog_ids: Sequence[int] = (),
    timings_per_token: bool = False,
    post_sampling_probs: bool = False,
) -> dict[str, Any]:
    """The values in force; steps that we do not have at their neutral values."""
    bias = dict(params.logit_bias)
    if params.ignore_eos:
        bias |= dict.fromkeys(eog_ids, -math.inf)
    limit = -1 if params.max_tokens is None else params.max_tokens
    return {
        **{name: getattr(params, name) for name in _SAME},
        **_ABSENT,
        "top_a": params.top_a,
        "tfs_z": params.tfs_z,
        "min_tokens": params.min_tokens,
        "max_tokens": limit,
        "n_predict": limit,
        "stop": list(stop),
        "stream": stream,
        "logit_bias": [
            {"bias": value if math.isfinite(value) else None, "token": token} for token, value in bias.items()
        ],
        "n_probs": params.logprobs or 0,
        "grammar": constraint.text if constraint is not None and constraint.kind == "gbnf" else "",
        "samplers": list(STEPS),
        "timings_per_token": timings_per_token,
        "post_sampling_probs": post_sampling_probs,
    }
