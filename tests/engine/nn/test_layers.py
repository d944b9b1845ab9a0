"""Linear layers and norms against numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.nn.layers import LayerNorm, Linear, RMSNorm
from support.references.calculator import Calculator

RNG = np.random.default_rng(4)
X = RNG.standard_normal((3, 8)).astype(np.float32)
WEIGHT, BIAS = RNG.standard_normal((2, 8)).astype(np.float32)
MATRIX, OFFSET = RNG.standard_normal((5, 8)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)


@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_a_product_plus_an_optional_bias(bias: bool) -> None:
    c = Calculator()
    layer = Linear(c.input(MATRIX), c.input(OFFSET) if bias else None)
    forward: Any = SimpleNamespace(ctx=c.ctx)
    out = c.compute(layer(forward, c.input(X)))[0, 0]
    np.testing.assert_allclose(out, X @ MATRIX.T + OFFSET * bias, rtol=1e-5, atol=1e-5)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    c = Calculator()
    out = c.compute(RMSNorm(c.input(WEIGHT), 0.1)(c.ctx, c.input(X)))[0, 0]
    expected = X / np.sqrt((X * X).mean(1, keepdims=True) + 0.1) * WEIGHT
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_also_subtracts_the_mean(bias: bool) -> None:
    c = Calculator()
    norm = LayerNorm(c.input(WEIGHT), c.input(BIAS) if bias else None, 0.1)
    out = c.compute(norm(c.ctx, c.input(X)))[0, 0]
    centred = X - X.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 0.1) * WEIGHT + BIAS * bias
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
