# cython: embedsignature=True
"""Rows of float32 to rows of any ggml type, and back. Several threads may run these at the same time."""

import numpy as np

from libc.stdint cimport int64_t

from engine.errors import GgmlError
from engine.ggml.tensor import row_size, type_id
from engine.libggml.ggml cimport (
    GGML_TYPE_F32, ggml_get_type_traits, ggml_quantize_chunk, ggml_quantize_init, ggml_quantize_requires_imatrix,
    ggml_to_float_t, ggml_type,
)

# Types for which ggml_quantize_chunk aborts.
cdef frozenset NO_TARGET = frozenset(("i8", "i16", "i32", "i64", "f64", "q8_1", "q8_K"))


def needs_importance(str type):
    """Whether rows of this type cannot be quantized without importances."""
    return bool(ggml_quantize_requires_imatrix(<ggml_type><int>type_id(type)))


def quantize(str type, const float[:, ::1] rows not None, const float[::1] importance=None):
    """rows float32 [n, ne0] as blocks of `type`: uint8 array of n rows. importance: float32 [ne0], of columns.

    GgmlError for a type that cannot be written, rows that are not whole blocks, values that are not finite, and
    missing importances.
    """
    cdef int number = type_id(type)
    cdef int64_t n = rows.shape[0], n_per_row = rows.shape[1]
    cdef const float* weights = NULL
    cdef unsigned char[:, ::1] out
    if type in NO_TARGET:
        raise GgmlError(f"type {type} cannot be written")
    if n == 0 or n_per_row == 0:
        raise GgmlError("there are no rows to quantize")
    if not np.isfinite(rows).all():
        raise GgmlError("there are values that are not finite")
    if importance is not None:
        if importance.shape[0] != n_per_row:
            raise GgmlError(f"{importance.shape[0]} importances for rows of {n_per_row}")
        weights = &importance[0]
    elif needs_importance(type):
        raise GgmlError(f"type {type} needs importances (an imatrix file)")
    blocks = np.empty((n, row_size(number, n_per_row)), np.uint8)
    out = blocks
    with nogil:
        ggml_quantize_init(<ggml_type>number)
        ggml_quantize_chunk(<ggml_type>number, &rows[0, 0], &out[0, 0], 0, n, n_per_row, weights)
    return blocks


def dequantize(str type, const unsigned char[::1] data not None, int64_t n, int64_t n_per_row):
    """n rows of n_per_row elements of `type` as float32 [n, n_per_row]. GgmlError if `data` is not that long."""
    cdef int number = type_id(type)
    cdef ggml_to_float_t convert = ggml_get_type_traits(<ggml_type>number).to_float
    cdef float[:, ::1] out
    if n <= 0 or n_per_row <= 0 or data.shape[0] != n * row_size(number, n_per_row):
        raise GgmlError(f"{data.shape[0]} bytes are not {n} rows of {n_per_row} {type}")
    if number == <int>GGML_TYPE_F32:
        return np.frombuffer(data, np.float32).reshape(n, n_per_row).copy()
    if convert == NULL:
        raise GgmlError(f"type {type} cannot be read as numbers")
    numbers = np.empty((n, n_per_row), np.float32)
    out = numbers
    with nogil:
        convert(&data[0], &out[0, 0], n * n_per_row)
    return numbers
