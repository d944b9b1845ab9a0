"""A mixture of experts against numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.hparams import Routing
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

HP = hparams(n_embd=N, n_ff=(FF,), n_expert=EXPERTS, n_expert_used=USED, n_ff_shared=FF)


def computed(
    routing: Routing, biases: np.ndarray | None = None, fused: bool = False, **options: Any
) -> np.ndarray:
    c = Calculator()
    tensors = {
        ("blk.0.ffn_gate_inp.weight", "mul_mat"): c.input(ROUTER),
        ("blk.0.ffn_gate_exps.weight", "mul_mat_id"): c.input(GATE),
        ("blk.0.ffn_up_exps.weight", "mul_mat_id"): c.input(UP),
        ("blk.0.ffn_down_exps.weight", "mul_mat_id"): c.input(DOWN),
    }
    if biases is not None:
        tensors["blk.0.exp_probs_b.bias", "add"] = c.input(biases)
    if options.get("shared"):
        for part, x in {"gate": GATE[0], "up": UP[0], "down": DOWN[0]}.items():
            tensors[f"blk.0.ffn_{part}_shexp.weight", "mul_mat"] = c.input(x)
    if fused:
        tensors["blk.0.ffn_gate_up_exps.weight", "mul_mat_id"] = c.input(np.concatenate([GATE, UP], axis=1))
    names = {name for name, _ in tensors}
    hp = replace(HP, routing=routing)
    moe = MixtureOfExperts(Binder(names.__contains__, tensors), hp, 0, **options)
    return c.compute(moe(Forward(c.ctx), c.input(X)))[0, 0]  # type: ignore[arg-type]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expert(i: int, x: np.ndarray) -> np.ndarray:
    gate = GATE[i] @ x
    return DOWN[i] @ (gate / (1 + np.exp(-gate)) * (UP[i] @ x))


def expected(routing: Routing, biases: np.ndarray | None = None, weighs_input: bool = False) -> np.ndarray:
    scores = X @ ROUTER.T
    if routing.weights != "selected":
        scores = softmax(scores) if routing.weights == "softmax" else 1 / (1 + np.exp(-scores))
    merits = scores if biases is None else scores + biases
    if routing.n_groups > 1:
        grouped = merits.reshape(ROWS, routing.n_groups, -1)
        totals = np.sort(grouped, axis=2)[..., -routing.judged_by :].sum(axis=2)
        left_out = np.argsort(totals, axis=1)[:, : routing.n_groups - routing.n_groups_used]
        merits = grouped.copy()
        np.put_along_axis(merits, left_out[..., None], -np.inf, axis=1)
        merits = merits.reshape(ROWS, EXPERTS)
    ids = np.argsort(-merits, axis=1)[:, :USED]
    shares = np.take_along_axis(scores, ids, 1)
    if routing.weights == "selected":
        shares = softmax(shares)
    elif routing.renormalise:
        shares = shares / shares.sum(1, keepdims=True)
    shares = shares * routing.scale
    out = np.zeros_like(X)
    for row in range(ROWS):
        for share, i in zip(shares[row], ids[row], strict=True):
            out[row] += expert(i, share * X[row]) if weighs_input else share * expert(i, X[row])
    return out


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


BIASES = np.array([0.9, -0.9, 0.5, -0.2], np.float32)


@pytest.mark.parametrize("biases", [None, BIASES])
@pytest.mark.parametrize(
    "routing",
    [
        Routing(),
        Routing(renormalise=False, scale=2.5),
        Routing(weights="selected"),
        Routing(weights="sigmoid", scale=0.5),
        Routing(weights="sigmoid", n_groups=2, judged_by=2),
        Routing(renormalise=False, n_groups=2),
    ],
    ids=str,
)
def test_output_is_the_weighted_sum_of_the_best_experts(routing: Routing, biases: np.ndarray | None) -> None:
    same(computed(routing, biases), expected(routing, biases))


def test_fused_gate_and_up_equal_separate_matrices() -> None:
    same(computed(Routing(), fused=True), expected(Routing()))


def test_a_shared_expert_without_a_gate_is_added_whole() -> None:
    always = np.stack([expert(0, x) for x in X])
    same(computed(Routing(), shared=True, gated=False), expected(Routing()) + always)


def test_weights_may_scale_what_experts_read() -> None:
    routing = Routing(weights="sigmoid", renormalise=False)
    same(computed(routing, weighs_input=True), expected(routing, weighs_input=True))


def test_sparsemixer_weighs_each_expert_against_its_rivals() -> None:
    scores = np.array([[3.0, 2.99, -1.0, 2.0], [0.5, -2.0, 0.495, 0.492], [1.0, 4.0, 2.0, 3.0]], np.float32)
    c = Calculator()
    moe = MixtureOfExperts(Binder(lambda name: False), replace(HP, routing=Routing(weights="sparsemixer")), 0)
    actual = c.compute(moe.mixed(c.ctx, c.input(scores)))[0, :, :, 0]
    rivals = [([0, 1], [1]), ([0, 2, 3], [2, 3]), ([1], [3])]  # within 2 % of the best, of the second
    for row, values, near in zip(scores, actual, rivals, strict=True):
        weights = [np.exp(row[ids].max()) / np.exp(row[ids]).sum() for ids in near]
        np.testing.assert_allclose(values, weights, rtol=1e-5)
