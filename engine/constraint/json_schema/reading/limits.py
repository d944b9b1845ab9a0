"""How large a schema may be."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

from engine.errors import ConfigError

MAX_DEPTH = 60  # nested schemas
MAX_PROPERTIES = 1000  # of one object
MAX_PROPERTIES_IN_ALL = 5000
MAX_VALUES = 10_000  # of all enums together
MAX_MULTIPLE = 10_000  # states of an automaton


class Limits:
    """What one schema has used up. Its methods raise ConfigError."""

    def __init__(self) -> None:
        self._properties = self._values = 0
        self._multiples: set[Fraction] = set()

    def count_properties(self, n: int) -> None:
        self._properties += n
        if n > MAX_PROPERTIES or self._properties > MAX_PROPERTIES_IN_ALL:
            raise ConfigError(
                f"the schema has too many properties: at most {MAX_PROPERTIES} in an object and "
                f"{MAX_PROPERTIES_IN_ALL} in all are supported"
            )

    def count_values(self, n: int) -> None:
        self._values += n
        if self._values > MAX_VALUES:
            raise ConfigError(f"enum: more than {MAX_VALUES} values in all are not supported")

    def note_multiple(self, value: Decimal) -> None:
        """Two in one place mean their least common multiple, and allOf or $ref may bring any two together."""
        if abs(value.adjusted()) > 20 or len(value.as_tuple().digits) > 20:
            raise ConfigError(f"multipleOf: more than {MAX_MULTIPLE} remainders are not supported")
        self._multiples.add(Fraction(value))
        common, unit = 1, math.lcm(*(multiple.denominator for multiple in self._multiples))
        for multiple in self._multiples:
            common = math.lcm(common, int(multiple * unit))
            while common % 10 == 0:  # a digit more, which is no state of the automaton
                common //= 10
            if common > MAX_MULTIPLE:
                raise ConfigError(f"multipleOf: more than {MAX_MULTIPLE} remainders are not supported")


def kind(value: Any) -> str:
    """What a value of JSON is, in an error message."""
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        Decimal: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return next((name for type_, name in names.items() if isinstance(value, type_)), "null")
