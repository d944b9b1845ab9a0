"""Typed reads of metadata that fail by the name of the key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, NoReturn, TypeVar, cast

from engine.errors import ModelError
from engine.gguf.header import Entry, Metadata
from engine.gguf.report import printable
from engine.gguf.types import FLOAT_TYPES, INT_TYPES, ValueType

T = TypeVar("T")
REQUIRED: Any = object()
_NUMBERS = FLOAT_TYPES | INT_TYPES


class TypedAccess:
    """`get_…(key, default)`: without a default the key is required. All raise ModelError with path and key.

    `min` and `max` are inclusive and not applied to the default. Integers may have any width; a number of an
    integer type is accepted as a float, never the other way round. Floats are finite.
    """

    path: str
    metadata: Metadata

    def fail(self, reason: str) -> NoReturn:
        """Raises ModelError with the path before the reason."""
        raise ModelError(f"{printable(self.path, 400)}: {reason}")

    @property
    def arch(self) -> str:
        """`general.architecture`."""
        return self.get_str("general.architecture")

    def value_type(self, key: str) -> tuple[ValueType, int | None] | None:
        """(type, None) of a scalar, (element type, length) of an array, None if there is no such key."""
        entry = self.metadata.entries.get(key)
        return None if entry is None else (entry.type, entry.n)

    def get_int(
        self, key: str, default: T = REQUIRED, *, min: int | None = None, max: int | None = None
    ) -> int | T:
        """One integer of any width."""
        value = self._scalar(key, default, INT_TYPES, "an integer")
        return cast(int, self._check(key, [value], min, max)[0]) if key in self.metadata else default

    def get_float(
        self, key: str, default: T = REQUIRED, *, min: float | None = None, max: float | None = None
    ) -> float | T:
        """One finite number."""
        value = self._scalar(key, default, _NUMBERS, "a number")
        return float(self._check(key, [value], min, max)[0]) if key in self.metadata else default

    def get_bool(self, key: str, default: T = REQUIRED) -> bool | T:
        return cast(bool | T, self._scalar(key, default, (ValueType.BOOL,), "a bool"))

    def get_str(self, key: str, default: T = REQUIRED) -> str | T:
        return cast(str | T, self._scalar(key, default, (ValueType.STRING,), "a string"))

    def get_ints(
        self,
        key: str,
        n: int | None = None,
        default: T = REQUIRED,
        *,
        min: int | None = None,
        max: int | None = None,
    ) -> list[int] | T:
        """An array of integers of length `n` (None: any), or one integer that stands for all `n`."""
        values = self._array(key, n, default, INT_TYPES, "an integer or an array of them")
        return cast(list[int], self._check(key, values, min, max)) if key in self.metadata else default

    def get_floats(self, key: str, n: int | None = None, default: T = REQUIRED) -> list[float] | T:
        """As `get_ints`, for finite numbers."""
        values = self._array(key, n, default, _NUMBERS, "a number or an array of them")
        return list(map(float, self._check(key, values, None, None))) if key in self.metadata else default

    def get_bools(self, key: str, n: int | None = None, default: T = REQUIRED) -> list[bool] | T:
        """As `get_ints`, for bools."""
        expected = "a bool or an array of them"
        return cast(list[bool] | T, self._array(key, n, default, (ValueType.BOOL,), expected))

    def get_strs(self, key: str, n: int | None = None, default: T = REQUIRED) -> list[str] | T:
        """An array of strings; one string does not stand for many."""
        expected = "an array of strings"
        entry = self.metadata.entries.get(key)
        if entry is not None and entry.n is None:
            self._bad_type(key, entry, expected)
        return cast(list[str] | T, self._array(key, n, default, (ValueType.STRING,), expected))

    def _scalar(self, key: str, default: Any, kinds: Collection[ValueType], expected: str) -> Any:
        entry = self.metadata.entries.get(key)
        if entry is None:
            return self._missing(key, default)
        if entry.n is not None or entry.type not in kinds:
            self._bad_type(key, entry, expected)
        return self.metadata[key]

    def _array(
        self, key: str, n: int | None, default: Any, kinds: Collection[ValueType], expected: str
    ) -> Any:
        entry = self.metadata.entries.get(key)
        if entry is None:
            return self._missing(key, default)
        if entry.type not in kinds:
            self._bad_type(key, entry, expected)
        if n is not None and entry.n is not None and entry.n != n:
            self.fail(f"key '{printable(key)}' has {entry.n} elements; expected {n}")
        value: Any = self.metadata[key]
        return list(value) if entry.n is not None else [value] * (1 if n is None else n)

    def _missing(self, key: str, default: Any) -> Any:
        if default is REQUIRED:
            self.fail(f"key '{printable(key)}' is missing")
        return default

    def _bad_type(self, key: str, entry: Entry, expected: str) -> NoReturn:
        self.fail(f"key '{printable(key)}' is {entry}; it must be {expected}")

    def _check(self, key: str, values: Sequence[Any], low: float | None, high: float | None) -> Sequence[Any]:
        """Finite and within the range; on whole arrays, since vocabularies have a score for each token."""
        if not values:
            return values
        name = f"key '{printable(key)}'"
        if not all(map(isfinite, values)):
            self.fail(f"{name} is {next(v for v in values if not isfinite(v))}; it must be finite")
        if low is not None and min(values) < low:
            self.fail(f"{name} is {min(values)}; it must be at least {low}")
        if high is not None and max(values) > high:
            self.fail(f"{name} is {max(values)}; it must be at most {high}")
        return values
