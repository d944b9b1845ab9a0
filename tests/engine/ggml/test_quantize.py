"""Rows to blocks of every type and back, and what is refused before ggml could abort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import GgmlError
from engine.ggml.quantize import dequantize, needs_importance, quantize
from support.quick import examples


@examples(40)
@given(st.sampled_from(["f16", "bf16", "q8_0", "q4_0", "q5_1", "q4_K", "q6_K", "iq4_nl"]), st.integers(1, 5))
def test_rows_survive_quantizing_and_dequantizing(kind: str, n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 256)).astype(np.float32)
    back = dequantize(kind, quantize(kind, rows).reshape(-1), n, 256)
    assert np.sqrt(np.square(back - rows).mean()) < 0.1


def test_rows_of_the_wrong_length_are_refused() -> None:
    rows = np.ones((2, 256), np.float32)
    assert needs_importance("iq1_s")
    for bad, kind, importance, message in (
        (rows[:, :100].copy(), "q8_0", None, "not a multiple"),
        (rows, "q8_1", None, "cannot be written"),
        (rows, "odd", None, "no type"),
        (rows, "iq1_s", None, "imatrix"),
        (rows, "q4_0", np.ones(3, np.float32), "importances"),
        (rows * np.inf, "q4_0", None, "finite"),
        (rows[:0], "q4_0", None, "no rows"),
    ):
        with pytest.raises(GgmlError, match=message):
            quantize(kind, bad, importance)
    with pytest.raises(GgmlError, match="bytes are not"):
        dequantize("q8_0", np.zeros(5, np.uint8), 1, 32)
