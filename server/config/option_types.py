"""Types of option values: how text from the command line, the environment or YAML becomes a checked value.

Validators raise ValueError with a message that reads well after the option's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from engine.config import MAX_ADAPTER_SCALE, LoraAdapter
from engine.errors import ConfigError
from engine.sampling import parameters as sampling
from engine.sampling.llama_cpp import STEPS, steps_of, steps_of_text
from engine.types import InferenceParameters

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def option(
    default: Any,
    description: str,
    metavar: str | None = None,
    *,
    section: str,
    shared: bool = True,
    old_name: str | None = None,
    **bounds: Any,
) -> Any:
    """A field of the settings. It declares an option in every form, hence the many parameters.

    section: a key of `server.config.settings.SECTIONS`. shared: `infer` has the option too, not only `serve`.
    old_name: a former name, which still works in every form. bounds: pydantic's `ge`, `le`, ….
    """
    extra: dict[str, Any] = {"section": section, "metavar": metavar, "shared": shared, "old_name": old_name}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


def lora_adapter(text: str) -> LoraAdapter:
    """FILE[=SCALE]; the file's name may itself contain "=". Raises ValueError for a scale out of range."""
    path, equals, number = text.rpartition("=")
    scale = 1.0
    if equals and path and not Path(text).expanduser().exists():
        try:
            scale = float(number)
        except ValueError:
            path = text
    else:
        path = text
    if not path.strip():
        raise ValueError("give FILE or FILE=SCALE")
    if not abs(scale) <= MAX_ADAPTER_SCALE:
        raise ValueError(f"the scale of {path} is {number}; it must lie between ±{MAX_ADAPTER_SCALE:g}")
    return LoraAdapter(str(Path(path).expanduser()), scale)


def tensor_override(text: str) -> tuple[str, str]:
    """PATTERN=DEVICE."""
    pattern, _, device = text.rpartition("=")
    if not pattern or not device:
        raise ValueError(f"{text[:200]!r} must be PATTERN=DEVICE")
    return pattern, device


def word_or_number(*words: str, least: int = 0) -> BeforeValidator:
    """Accepts a number or one of `words`, with one error message instead of pydantic's one per member of a
    union.
    """

    def check(value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        try:
            number = int(value) if not isinstance(value, bool) else -1
        except (TypeError, ValueError):
            number = -1
        if number < least:
            raise ValueError(f"must be a number ({least} or more) or {' or '.join(words)}")
        return number

    return BeforeValidator(check)


def true_false_auto(value: Any) -> Any:
    if isinstance(value, str):
        words: dict[str, Any] = {"auto": "auto", "true": True, "1": True, "yes": True, "on": True}
        words |= {"false": False, "0": False, "no": False, "off": False}
        if value.strip().lower() not in words:
            raise ValueError("must be auto, true or false")
        return words[value.strip().lower()]
    return value


def on_off(value: Any) -> Any:
    """YAML 1.1 reads an unquoted on or off as a boolean."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def split(value: Any) -> Any:
    """A list from one string, as in an environment variable: JSON or comma-separated."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not a valid JSON list: {error}") from None
    return [part.strip() for part in value.split(",") if part.strip()]


def numbers(value: Any) -> Any:
    """A flat list from texts, each of which may contain several numbers, such as `3,1`."""
    parts = [split(part) for part in value] if isinstance(value, list | tuple) else split(value)
    return [x for part in parts for x in (part if isinstance(part, list) else [part])]


def nbytes(value: Any) -> Any:
    """Bytes, from a number with K, M, G or T for powers of 1024."""
    if not isinstance(value, str):
        return value
    number, unit = (value[:-1], value[-1:].upper()) if value[-1:].upper() in _UNITS else (value, "")
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        raise ValueError(f"must be a number of bytes such as 24G, not {value[:64]!r}") from None


def named(value: Any) -> Any:
    """Turns the YAML mapping `model: {name: path}` into a list of NAME=PATH; lists in it become JSON."""
    if not isinstance(value, dict):
        return split(value)
    return [f"{name}={json.dumps(v) if isinstance(v, list) else v}" for name, v in value.items()]


def json_object(value: Any) -> Any:
    """An object from a YAML mapping or JSON."""
    if not isinstance(value, str):
        return value
    try:
        decoded = json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise ValueError('must be a JSON object, such as {"name": true}')
    return decoded


def samplers(text: str) -> tuple[str, ...]:
    """Sampling steps from names separated by `;`, a JSON list, or a string of letters."""
    steps, unknown = steps_of(texts(text)) if text.lstrip().startswith("[") else steps_of_text(text)
    if unknown:
        raise ValueError(f"{unknown[0][:64]!r} is not a sampler; expected one of {', '.join(STEPS)}")
    return steps


def texts(text: str) -> tuple[str, ...]:
    """A list of strings from JSON."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError('must be a JSON list of texts, such as ["a", "b"]')
    return tuple(values)


def _number(kind: type, name: str, text: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text[:64]!r}") from None
    return None if name == "max_tokens" and value == -1 else value


def sampling_defaults(values: Sequence[str]) -> dict[str, Any]:
    """Validated sampling parameters from NAME=VALUE texts."""
    kinds = {
        field.name: float if isinstance(field.default, float) else int
        for field in msgspec.structs.fields(InferenceParameters)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    } | {"max_tokens": int}
    others = {"samplers": samplers, "dry_sequence_breakers": texts}
    parameters: dict[str, Any] = {}
    for text in values:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if name in others:
            try:
                parameters[name] = others[name](value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        elif name in kinds:
            parameters[name] = _number(kinds[name], name, value)
        else:
            names = ", ".join((*kinds, *others))
            raise ValueError(f"{text[:64]!r} must be NAME=VALUE, where NAME is one of {names}")
    try:
        sampling.validate(InferenceParameters(**parameters), 1)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return parameters


def one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    """A validator that accepts only these words."""

    def check(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return check


def address(value: str) -> str:
    """HOST:PORT."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"must be HOST:PORT, not {value!r}")
    return value


Words = Annotated[list[str], BeforeValidator(split)]
Addresses = Annotated[list[Annotated[str, AfterValidator(address)]], BeforeValidator(split)]
Positive = Annotated[float, Field(gt=0, le=86400 * 365, allow_inf_nan=False)]
