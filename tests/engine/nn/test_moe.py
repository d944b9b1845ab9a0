"""A mixture of experts against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.nn.binder import Binder
from engine.nn.moe import MixtureOfExperts
from support.builders.hparams import hparams
from support.references.calculator import Calculator, Forward

N, FF, EXPERTS, USED, ROWS = 8, 12, 4, 2, 3
RNG = np.random.default_rng(3)
ROUTER = RNG.standard_normal((EXPERTS, N)).astype(np.float32)
GATE, UP = (RNG.standard_normal((EXPERTS, FF, N)).astype(np.float32) for _ in range(2))
DOWN = RNG.standard_normal((EXPERTS, N, FF)).astype(np.float32)
X = RNG.standard_normal((ROWS, N)).astype(np.float32)

HP = hparams(n_embd=N, n_ff=(FF,), n_expert=EXPERTS, n_expert_used=USED)


def computed(**options: Any) -> np.ndarray:
    c = Calculator()
    tensors = {
        ("blk.0.ffn_gate_inp.weight", "mul_mat"): c.input(ROUTER),
        ("blk.0.ffn_gate_exps.weight", "mul_mat_id"): c.input(GATE),
        ("blk.0.ffn_up_exps.weight", "mul_mat_id"): c.input(UP),
        ("blk.0.ffn_down_exps.weight", "mul_mat_id"): c.input(DOWN),
    }
    names = {name for name, _ in tensors}
    moe = MixtureOfExperts(Binder(names.__contains__, tensors), HP, 0, **options)
    return c.compute(moe(Forward(c.ctx), c.input(X)))[0, 0]  # type: ignore[arg-type]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(weights: str, renormalise: bool) -> np.ndarray:
    scores = X @ ROUTER.T
    ids = np.argsort(-scores, axis=1)[:, :USED]
    shares = np.take_along_axis(scores if weights == "selected" else softmax(scores), ids, 1)
    if weights == "selected":
        shares = softmax(shares)
    elif renormalise:
        shares /= shares.sum(1, keepdims=True)
    out = np.zeros_like(X)
    for row in range(ROWS):
        for share, i in zip(shares[row], ids[row], strict=True):
            gate = GATE[i] @ X[row]
            out[row] += share * (DOWN[i] @ (gate / (1 + np.exp(-gate)) * (UP[i] @ X[row])))
    return out


@pytest.mark.parametrize(
    ("weights", "renormalise"), [("softmax", True), ("softmax", False), ("selected", True)]
)
def test_output_is_the_weighted_sum_of_the_best_experts(weights: str, renormalise: bool) -> None:
    out = computed(weights=weights, renormalise=renormalise)
    np.testing.assert_allclose(out, expected(weights, renormalise), rtol=2e-3, atol=2e-3)
