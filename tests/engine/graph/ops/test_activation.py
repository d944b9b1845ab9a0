"""Our GELU against the formula in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.errors import GgmlError
from engine.ggml.operations import Context
from engine.ggml.tensor import F16, F32
from engine.graph.ops import activation
from support.references.calculator import Calculator


def reference(name: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    if name == "gelu":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("name", ["gelu", "gelu_erf"])
@pytest.mark.parametrize("n", [1, 5, 16, 1023, 2500])
@pytest.mark.parametrize("gated", [False, True])
def test_gelu_matches_the_formula(name: str, n: int, gated: bool) -> None:
    x = np.linspace(-20, 20, 3 * n, dtype=np.float32).reshape(3, n)
    up = np.random.default_rng(0).normal(size=(3, n)).astype(np.float32) if gated else None
    c = Calculator()
    got = c.compute(activation.op(c.ctx, name, c.input(x), None if up is None else c.input(up)))
    expected = reference(name, x) * (1 if up is None else up)
    assert np.abs(got.reshape(3, n) - expected).max() < 4e-6
    near = np.abs(x) < 3
    assert np.abs(got.reshape(3, n) - expected)[near].max(initial=0) < 1e-6


@pytest.mark.parametrize("name", ["gelu", "gelu_erf"])
def test_rows_may_be_parts_of_longer_ones(name: str) -> None:
    both = np.random.default_rng(1).normal(size=(4, 70)).astype(np.float32)
    c = Calculator()
    t = c.input(both)
    gate, up = (c.ctx.view(t, (35, 4), (280,), 4 * begin) for begin in (0, 35))
    got = c.compute(activation.op(c.ctx, name, gate, up)).reshape(4, 35)
    assert np.abs(got - reference(name, both[:, :35]) * both[:, 35:]).max() < 1e-6


@pytest.mark.parametrize("name", ["gelu", "gelu_erf"])
def test_values_that_are_not_finite_stay_not_finite(name: str) -> None:
    x = np.array([[np.nan, np.inf, 1e30, -1e30, 0.0]], np.float32)
    c = Calculator()
    got = c.compute(activation.op(c.ctx, name, c.input(x))).reshape(5)
    assert np.isnan(got[0])
    assert got[1] == np.inf
    assert got[2] == np.float32(1e30)
    assert got[3] == 0
    assert got[4] == 0


def test_unsuitable_values_are_refused() -> None:
    ctx = Context(8)
    with pytest.raises(GgmlError, match="must be F32 with contiguous rows"):
        activation.op(ctx, "silu", ctx.new(F32, (4, 2)))
    with pytest.raises(GgmlError, match="must be F32 with contiguous rows"):
        activation.op(ctx, "gelu", ctx.new(F16, (4, 2)))
    with pytest.raises(GgmlError, match="differ in shape"):
        activation.op(ctx, "gelu", ctx.new(F32, (4, 2)), ctx.new(F32, (4, 3)))
