"""JSON with numbers as written: integers of any size, decimals with all their digits.

For everything that passes JSON on: constraints, tool calls, template output. May be imported from everywhere.
"""

from __future__ import annotations

import json
import re
import secrets
from decimal import Decimal
from typing import Any

from engine.errors import ConfigError

# Around the number of a decimal while the text is written: nothing that a client could know.
_MARK = secrets.token_hex(16)
_MARKED = re.compile(rf'"{_MARK}(\d+)"')


class ExactFloat(float):
    """A decimal that no double equals. It compares as the nearest double and prints as `text`."""

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def read_float(text: str) -> float:
    """A number of JSON with a point or an exponent. Raises ValueError if it is too large for a double."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    if Decimal(text) == Decimal(repr(value)):
        return value
    exact = ExactFloat(value)
    exact.text = text
    return exact


def loads(text: str) -> Any:
    """The JSON of a constraint. Raises ConfigError."""
    try:
        return json.loads(text, parse_float=read_float)
    except RecursionError:
        raise ConfigError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"the JSON is not valid: {error}") from None


def dumps(value: Any) -> str:
    """One line of JSON in ASCII. Raises ConfigError."""
    try:
        return write(value, allow_nan=False)
    except (RecursionError, ValueError, TypeError) as error:
        raise ConfigError(f"this cannot be written as JSON: {error}") from None


def write(value: Any, **options: Any) -> str:
    """As `json.dumps`, with the digits of every ExactFloat and Decimal."""
    exact: list[str] = []
    text = json.dumps(_marked(value, exact), **options)
    return _MARKED.sub(lambda match: exact[int(match[1])], text) if exact else text


def number(value: Any) -> Decimal | None:
    """The exact value of a number of JSON; None for anything else, and for infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    exact = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    return exact if exact.is_finite() else None


def number_text(value: Decimal) -> str:
    """A number as JSON has it: `12`, `0.25`, `1e+40`."""
    return str(value).lower()


def _marked(value: Any, exact: list[str]) -> Any:
    """The value with a placeholder for each decimal, whose text is added to `exact`."""
    if isinstance(value, ExactFloat | Decimal):
        if not isinstance(value, ExactFloat) and not value.is_finite():
            raise ValueError("infinity is not a JSON number")
        exact.append(value.text if isinstance(value, ExactFloat) else number_text(value))
        return f"{_MARK}{len(exact) - 1}"
    if isinstance(value, dict):
        return {key: _marked(item, exact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, exact) for item in value]
    return value
