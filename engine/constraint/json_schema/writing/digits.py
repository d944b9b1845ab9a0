"""Regular expressions of the numbers between two bounds, exact for any number of digits."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

INTEGER = "-?(0|[1-9][0-9]*)"
# Exponents that a double can hold.
NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?"
# Doubles tell all decimals of so many digits apart.
_EXACT_DIGITS = 15


def integers(low: int | None, high: int | None) -> str:
    """Integers from `low` to `high`, both included; None: no bound. There must be one."""
    if low is None and high is None:
        return INTEGER
    parts = []
    if low is None or low < 0:
        parts.append("-" + _naturals(max(1, -high) if high is not None else 1, None if low is None else -low))
    if high is None or high >= 0:
        parts.append(_naturals(max(0, low or 0), high))
    return _either(parts)


def integer_bounds(
    low: Decimal | None, low_open: bool, high: Decimal | None, high_open: bool
) -> tuple[int | None, int | None]:
    """The first and the last integer between bounds."""
    first = last = None
    if low is not None:
        first = int(low.to_integral_value(ROUND_CEILING))
        first += low_open and first == low
    if high is not None:
        last = int(high.to_integral_value(ROUND_FLOOR))
        last -= high_open and last == high
    return first, last


def decimals(low: Decimal | None, low_open: bool, high: Decimal | None, high_open: bool) -> str:
    """Decimals between bounds, without exponents. There must be one."""
    if low is None and high is None:
        return NUMBER
    places = _places(low, high)
    parts = []
    if low is None or low < 0:
        below_zero = high is not None and high < 0
        least = -high if high is not None and below_zero else Decimal(0)
        negative = _positive(
            least, high_open or not below_zero, None if low is None else -low, low_open, places
        )
        parts.append(f"-{negative}" if negative else "")
    if high is None or high > 0 or (high == 0 and not high_open):
        least = Decimal(0) if low is None or low < 0 else low
        parts.append(_positive(least, low is not None and low >= 0 and low_open, high, high_open, places))
    return _either([part for part in parts if part])


def _places(low: Decimal | None, high: Decimal | None) -> int:
    """How many digits behind the point may be written."""
    bounds = [bound for bound in (low, high) if bound is not None]
    written = max(max(0, -int(bound.normalize().as_tuple().exponent)) for bound in bounds)
    whole = max(len(str(abs(int(bound)))) for bound in bounds)
    return max(written, _EXACT_DIGITS - whole, 0)


def _positive(low: Decimal, low_open: bool, high: Decimal | None, high_open: bool, places: int) -> str:
    """Decimals from `low` ≥ 0 on, with at most `places` digits behind the point."""
    scale = Decimal(10) ** places
    first, last = integer_bounds(low * scale, low_open, None if high is None else high * scale, high_open)
    assert first is not None
    if last is not None and first > last:
        return ""
    if not places:
        return _naturals(first, last)
    size = 10**places
    (a, x), (b, y) = divmod(first, size), divmod(size - 1 if last is None else last, size)
    if last is not None and a == b:
        return _at(a, x, y, places)
    parts = [_at(a, x, size - 1, places)]
    if last is None:
        parts.append(_naturals(a + 1, None) + _fraction(0, size - 1, places))
    else:
        if a + 1 <= b - 1:
            parts.append(_naturals(a + 1, b - 1) + _fraction(0, size - 1, places))
        parts.append(_at(b, 0, y, places))
    return _either(parts)


def _at(whole: int, low: int, high: int, places: int) -> str:
    return f"{whole}{_fraction(low, high, places)}"


def _fraction(low: int, high: int, places: int) -> str:
    """The point and digits of `low` to `high`, in units of the last place, with or without trailing zeros."""
    if low == 0 and high == 10**places - 1:
        return rf"(\.[0-9]{{1,{places}}})?"
    digits = _tail(f"{low:0{places}d}", f"{high:0{places}d}")
    return rf"(\.{digits})?" if low == 0 else rf"\.{digits}"


def _tail(low: str, high: str) -> str:
    """Digits from `low` to `high`, which are equally long: at least one, with or without trailing zeros."""
    n = len(low)
    if n == 1:
        return _digit(low, high)
    if low.strip("0") == "" and high.strip("9") == "":
        return f"[0-9]{{1,{n}}}"
    parts = []
    first, last = int(low[0]), int(high[0])
    if first == last:
        rest = _tail(low[1:], high[1:])
        return f"{first}({rest})?" if low[1:].strip("0") == "" else f"{first}{rest}"
    start, stop = first, last
    if low[1:].strip("0"):
        parts.append(f"{first}{_tail(low[1:], '9' * (n - 1))}")
        start += 1
    if high[1:].strip("9"):
        parts.append(f"{last}({_tail('0' * (n - 1), high[1:])})?")
        stop -= 1
    if start <= stop:
        parts.append(f"{_digit(str(start), str(stop))}[0-9]{{0,{n - 1}}}")
    return _either(parts)


def _naturals(low: int, high: int | None) -> str:
    """Integers from `low` ≥ 0 on."""
    parts = []
    n = len(str(low))
    if high is None:
        parts.append(_same_length(str(low), "9" * n))
        return _either([*parts, f"[1-9][0-9]{{{n},}}"])
    last = len(str(high))
    if n == last:
        return _same_length(str(low), str(high))
    parts.append(_same_length(str(low), "9" * n))
    if last - n > 1:
        parts.append(f"[1-9][0-9]{{{n},{last - 2}}}")
    parts.append(_same_length("1" + "0" * (last - 1), str(high)))
    return _either(parts)


def _same_length(low: str, high: str) -> str:
    n = len(low)
    if not n:
        return ""
    if n == 1 or low[0] == high[0]:
        return _digit(low[0], high[0]) + _same_length(low[1:], high[1:])
    parts, start, stop = [], int(low[0]), int(high[0])
    if low[1:].strip("0"):
        parts.append(low[0] + _same_length(low[1:], "9" * (n - 1)))
        start += 1
    if high[1:].strip("9"):
        parts.append(high[0] + _same_length("0" * (n - 1), high[1:]))
        stop -= 1
    if start <= stop:
        parts.append(f"{_digit(str(start), str(stop))}[0-9]{{{n - 1}}}")
    return _either(parts)


def _digit(low: str, high: str) -> str:
    return low if low == high else f"[{low}-{high}]"


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"
