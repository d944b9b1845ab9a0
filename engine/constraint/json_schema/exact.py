"""JSON with numbers as they are written: integers of any size, decimals as `Decimal`."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from engine.errors import ConfigError


def loads(text: str) -> Any:
    """JSON that a constraint carries. Raises ConfigError."""
    try:
        return json.loads(text, parse_float=Decimal)
    except RecursionError:
        raise ConfigError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"the JSON is not valid: {error}") from None


def dumps(value: Any) -> str:
    """One line of JSON. Decimals come out with all of their digits. Raises ConfigError."""
    try:
        return _dumps(value)
    except (RecursionError, ValueError, TypeError) as error:
        raise ConfigError(f"this cannot be written as JSON: {error}") from None


def number(value: Any) -> Decimal | None:
    """The exact value of a number of JSON; None for anything else, and for infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    exact = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    return exact if exact.is_finite() else None


def number_text(value: Decimal) -> str:
    """A number as JSON has it: `12`, `0.25`, `1e+400`."""
    return str(value).lower()


def _dumps(value: Any) -> str:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be strings")
        return "{" + ", ".join(f"{json.dumps(key)}: {_dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_dumps, value)) + "]"
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("infinities are no numbers of JSON")
        return number_text(value)
    return json.dumps(value, allow_nan=False)
