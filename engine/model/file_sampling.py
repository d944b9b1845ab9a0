"""A model file's recommended sampling parameters: the keys `general.sampling.*` of llama.cpp's converter."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError, ModelError
from engine.gguf import GGUFFile, printable
from engine.sampling import llama_cpp
from engine.sampling.parameters import MAX_SAMPLERS, validate
from engine.types import InferenceParameters

PREFIX = "general.sampling."
KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
_DEFAULTS = {name: getattr(InferenceParameters(), name) for name in KEYS.values()}


def file_sampling(gguf: GGUFFile) -> tuple[dict[str, Any], list[str]]:
    """The fields of `InferenceParameters` that the file sets, and a note about each key without effect.

    A bad recommendation is no reason to refuse a model: it is ignored, with a note.
    """
    values: dict[str, Any] = {}
    remarks: list[str] = []
    for key, name in KEYS.items():
        if PREFIX + key not in gguf.metadata:
            continue
        try:
            value: Any = _number(gguf, PREFIX + key, whole=isinstance(_DEFAULTS[name], int))
            values[name] = getattr(validate(InferenceParameters(**{name: value}), 1), name)
        except (ConfigError, ModelError) as error:
            reason = str(error).removeprefix(f"{printable(gguf.path, 400)}: ")
            remarks.append(f"{PREFIX}{key} has no effect: {reason}")
    steps, step_remarks = _sequence(gguf)
    values |= {} if steps is None else {"samplers": steps}
    remarks += step_remarks
    return values, remarks


def _number(gguf: GGUFFile, key: str, whole: bool) -> float:
    if whole:
        return gguf.get_int(key)
    return float(f"{gguf.get_float(key):.6g}")  # as it was written: 0.6, not 0.6000000238418579


def _sequence(gguf: GGUFFile) -> tuple[tuple[str, ...] | None, list[str]]:
    """The effective steps in order, and notes. None: the file does not state them."""
    key = f"{PREFIX}sequence"
    try:
        text = gguf.get_str(key, "")
    except ModelError as error:
        return None, [f"{key} has no effect: {error}"]
    names = [name.strip() for name in text.split(";") if name.strip()]
    if not names:
        return None, []
    if len(names) > MAX_SAMPLERS:
        return None, [f"{key} has no effect: it names {len(names)} steps, the limit is {MAX_SAMPLERS}"]
    steps, unknown = llama_cpp.steps_of(names)
    return steps, [f"{key}: {printable(name, 64)!r} is not supported" for name in unknown]
