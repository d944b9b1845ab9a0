"""`samplers`: the steps in force. Those that it does not name get neutral values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.api.common.native_completion import STEPS
from server.generation.request_context import RequestContext

_LETTERS = {
    "e": "penalties",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "t": "temperature",
    "d": "dry",
    "s": "top_n_sigma",
    "x": "xtc",
    "i": "infill",
    "a": "adaptive_p",
}
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
_HAVE_FIELDS = ("dry", "top_n_sigma", "xtc", "adaptive_p")  # which say whether they ask for anything


def switched_off(samplers: Sequence[str] | None, context: RequestContext) -> dict[str, Any]:
    """Neutral values for the steps that `samplers` leaves out. Warns of what has no effect."""
    if samplers is None:
        return {}
    known = [_OTHER_NAMES.get(name) or (_LETTERS.get(name, name)) for name in samplers]
    for name in dict.fromkeys(known):
        if name not in STEPS and name not in _HAVE_FIELDS:
            context.warn(f"samplers: {name[:64]!r} has no effect, this server has no such step")
    steps = list(STEPS)
    places = [steps.index(name) for name in known if name in STEPS]
    if places != sorted(places):
        context.warn(f"samplers: their order has no effect; it is {', '.join(steps)}")
    return {field: value for step in steps if step not in known for field, value in STEPS[step].items()}
