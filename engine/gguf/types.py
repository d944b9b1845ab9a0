"""Types of GGUF values and of ggml tensors, as the pinned ggml 0.25.3 has them."""

from __future__ import annotations

from enum import IntEnum
from math import prod
from typing import NamedTuple, TypeAlias

Value: TypeAlias = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]


class ValueType(IntEnum):
    """Type of a metadata value, or of an array's elements."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# struct codes of everything with a fixed size
VALUE_FORMATS = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
FLOAT_TYPES = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})
INT_TYPES = frozenset(VALUE_FORMATS) - FLOAT_TYPES - {ValueType.BOOL}


class GGMLType(IntEnum):
    """Type of a tensor's elements: `type_size` bytes hold `block_size` elements of one row."""

    block_size: int
    type_size: int

    def __new__(cls, value: int, block_size: int, type_size: int) -> GGMLType:
        member = int.__new__(cls, value)
        member._value_ = value
        member.block_size = block_size
        member.type_size = type_size
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 36
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18
    Q2_0 = 42, 64, 18

    @property
    def ggml_name(self) -> str:
        """As ggml spells it: `q4_K`, `iq2_xs`."""
        return self.name.lower().replace("_k", "_K")

    def row_size(self, n_elements: int) -> int:
        """Bytes of one row; n_elements is a multiple of block_size."""
        return n_elements // self.block_size * self.type_size


# Numbers that ggml once gave to types and will not reuse.
REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


class TensorInfo(NamedTuple):
    """Where a tensor lies. `shape` is in ggml's order, fastest dimension first; `offset` in its file."""

    name: str
    type: GGMLType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    part: int = 0  # of a split model, from 0

    @property
    def n_elements(self) -> int:
        return prod(self.shape)
