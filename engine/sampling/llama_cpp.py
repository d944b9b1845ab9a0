"""llama.cpp's names of the sampling steps, as its requests, options and model files use them."""

from __future__ import annotations

from collections.abc import Iterable

# The steps in the order in which they run unless `samplers` says otherwise, and our parameters of each.
STEPS: dict[str, tuple[str, ...]] = {
    "penalties": ("repeat_penalty", "frequency_penalty", "presence_penalty", "repeat_last_n"),
    "dry": (
        "dry_multiplier",
        "dry_base",
        "dry_allowed_length",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
    ),
    "top_n_sigma": ("top_n_sigma",),
    "top_k": ("top_k",),
    "tfs_z": ("tfs_z",),
    "typ_p": ("typical_p",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "top_a": ("top_a",),
    "xtc": ("xtc_probability", "xtc_threshold"),
    "temperature": ("temperature", "dynatemp_range", "dynatemp_exponent"),
    "adaptive_p": ("adaptive_target", "adaptive_decay"),  # only where it is listed
}
# f is llama.cpp's former letter of tail-free sampling.
LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "f": "tfs_z",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
    "a": "adaptive_p",
}
_OTHER_NAMES = {
    "nucleus": "top_p",
    "typ": "typ_p",
    "typical": "typ_p",
    "typical_p": "typ_p",
    "typical-p": "typ_p",
    "temp": "temperature",
    **{name.replace("_", separator): name for name in STEPS for separator in ("-", "")},
}


def step_name(name: str) -> str | None:
    """The name in `STEPS`; None for a name that no step has."""
    name = name.strip().lower()
    return name if name in STEPS else _OTHER_NAMES.get(name)


def steps_of(names: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """The steps of these names or letters, in this order, and the names that are unknown."""
    steps = {name: LETTERS.get(name) or step_name(name) for name in names}
    known = tuple(step for name in names if (step := steps[name]) is not None)
    return known, [name for name, step in steps.items() if step is None]


def steps_of_text(text: str) -> tuple[tuple[str, ...], list[str]]:
    """The same of names separated by `;`, or of letters in a row."""
    names = [name.strip() for name in text.split(";") if name.strip()]
    if len(names) == 1 and step_name(names[0]) is None and all(letter in LETTERS for letter in names[0]):
        names = list(names[0])
    return steps_of(names)
