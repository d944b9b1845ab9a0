"""`samplers`: the steps in force. Those that it does not name get neutral values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.sampling.llama_cpp import STEPS, in_order, neutral_values, step_name
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
_HAVE_FIELDS = ("dry", "top_n_sigma", "xtc", "adaptive_p")  # which say whether they ask for anything


def switched_off(samplers: Sequence[str], context: RequestContext) -> dict[str, Any]:
    """Neutral values for the steps that `samplers` leaves out. Warns of what has no effect."""
    known = [_LETTERS.get(name) or step_name(name) for name in samplers]
    for name in dict.fromkeys(known):
        if name not in STEPS and name not in _HAVE_FIELDS:
            context.warn(f"samplers: {name[:64]!r} has no effect, this server has no such step")
    if not in_order(known):
        context.warn(f"samplers: their order has no effect; it is {', '.join(STEPS)}")
    return neutral_values(known)
