"""llama.cpp's names of the sampling steps, as its requests and model files use them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# Its steps in the order in which they run, here as there; our parameters of each with neutral values.
STEPS: dict[str, dict[str, Any]] = {
    "penalties": {"repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0},
    "top_k": {"top_k": 0},
    "typ_p": {"typical_p": 1.0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "temperature": {"temperature": 1.0},
}
# Those that we do not have.
OTHER_STEPS = ("dry", "top_n_sigma", "xtc", "adaptive_p", "infill")
_OTHER_NAMES = {
    "top-k": "top_k",
    "top-p": "top_p",
    "nucleus": "top_p",
    "min-p": "min_p",
    "typical": "typ_p",
    "typical_p": "typ_p",
    "typical-p": "typ_p",
    "typ": "typ_p",
    "typ-p": "typ_p",
    "temp": "temperature",
}


def step_name(name: str) -> str:
    """The name in `STEPS` or `OTHER_STEPS`; an unknown name as it is."""
    return _OTHER_NAMES.get(name, name)


def neutral_values(steps: Collection[str]) -> dict[str, Any]:
    """Our parameters of all steps but these, at values that switch them off."""
    return {name: value for step in STEPS if step not in steps for name, value in STEPS[step].items()}


def in_order(steps: Collection[str]) -> bool:
    """Whether the steps that we have are listed in the order in which they run."""
    places = [list(STEPS).index(name) for name in steps if name in STEPS]
    return places == sorted(places)
