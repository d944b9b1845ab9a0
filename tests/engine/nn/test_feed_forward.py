"""Each kind of feed-forward network against numpy, and which tensors it names."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.nn.binder import Binder
from engine.nn.feed_forward import FeedForward
from support.builders.hparams import hparams
from support.references.calculator import Calculator, Forward

N, FF, ROWS = 8, 12, 3
RNG = np.random.default_rng(3)
GATE, UP = RNG.standard_normal((2, FF, N)).astype(np.float32)
DOWN = RNG.standard_normal((N, FF)).astype(np.float32)
X = RNG.standard_normal((ROWS, N)).astype(np.float32)
HP = hparams(n_embd=N, n_ff=(FF,))


def computed(matrices: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    c = Calculator()
    tensors = {(f"blk.0.ffn_{name}.weight", "mul_mat"): c.input(x) for name, x in matrices.items()}
    names = {name for name, _ in tensors}
    ffn = FeedForward(Binder(names.__contains__, tensors), HP, 0, **options)
    return c.compute(ffn(Forward(c.ctx), c.input(X)))[0, 0]  # type: ignore[arg-type]


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


GATED = (silu(X @ GATE.T) * (X @ UP.T)) @ DOWN.T


def test_split_gate_multiplies_the_up_projection() -> None:
    out = computed({"gate": GATE, "up": UP, "down": DOWN})
    np.testing.assert_allclose(out, GATED, rtol=2e-3, atol=2e-3)


def test_fused_gate_is_the_first_half_of_the_rows() -> None:
    out = computed({"up": np.concatenate([GATE, UP]), "down": DOWN}, gate="fused")
    np.testing.assert_allclose(out, GATED, rtol=2e-3, atol=2e-3)


def test_without_a_gate_the_activation_is_between_up_and_down() -> None:
    out = computed({"up": UP, "down": DOWN}, gate=None, activation="relu")
    np.testing.assert_allclose(out, np.maximum(X @ UP.T, 0) @ DOWN.T, rtol=2e-3, atol=2e-3)


def test_a_shared_expert_has_its_own_names_and_width() -> None:
    binder = Binder(lambda name: name.endswith(".weight"))
    FeedForward(binder, HP, 0, suffix="_shexp", n_ff=20)
    assert {spec.name: spec.shape for spec in binder.specs} == {
        "blk.0.ffn_gate_shexp.weight": (N, 20),
        "blk.0.ffn_up_shexp.weight": (N, 20),
        "blk.0.ffn_down_shexp.weight": (20, N),
    }
