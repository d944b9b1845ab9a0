"""Which tensors an encoder names, and what its classification head computes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.hparams import HParams
from engine.nn.binder import Binder, TensorSpec
from engine.nn.encoder import Encoder
from engine.nn.hparams_reader import HParamsReader
from support.builders.hparams import hparams
from support.references.calculator import Calculator

N = 8
HP = hparams(n_embd=N, causal=False, n_scores=2)
RNG = np.random.default_rng(6)
X = RNG.standard_normal((3, N)).astype(np.float32)
DENSE, SCORES = RNG.standard_normal((N, N)).astype(np.float32), RNG.standard_normal((2, N)).astype(np.float32)


class Bert(Encoder):
    activation = "gelu"

    @classmethod
    def read(cls, reader: HParamsReader) -> HParams:
        return HP


def specs(hp: HParams, *present: str) -> dict[str, TensorSpec]:
    binder = Binder(present.__contains__)
    Bert(hp).bind(binder)
    return {spec.name: spec for spec in binder.specs}


@pytest.mark.parametrize(("n", "op"), [(1, "add"), (2, "get_rows")])
def test_bind_adds_one_token_type_and_looks_several_up(n: int, op: str) -> None:
    spec = specs(replace(HP, n_token_types=n))["token_types.weight"]
    assert (spec.op, spec.shape) == (op, (N, n))


def test_bind_names_positions_only_if_they_are_learned() -> None:
    assert "position_embd.weight" not in specs(HP)
    assert specs(replace(HP, max_positions=64))["position_embd.weight"].shape == (N, 64)


@pytest.mark.parametrize(
    ("present", "shapes"),
    [
        ((), {}),
        (("cls.weight",), {"cls.weight": (N, 2)}),
        (("cls.output.weight",), {"cls.output.weight": (N, 2)}),
        (
            ("cls.weight", "cls.output.weight"),
            {"cls.weight": (N, N), "cls.output.weight": (N, 2)},
        ),
    ],
)
def test_bind_takes_the_head_that_the_file_has(
    present: tuple[str, ...], shapes: dict[str, tuple[int, ...]]
) -> None:
    named = specs(HP, *present)
    assert {name: spec.shape for name, spec in named.items() if name.startswith("cls")} == shapes


def scores(matrices: dict[str, np.ndarray]) -> np.ndarray:
    c = Calculator()
    head = {(f"{name}.weight", "mul_mat"): c.input(x) for name, x in matrices.items()}

    class Tensors(dict[Any, Any]):
        def __missing__(self, key: tuple[str, str]) -> Any:
            return head.get(key)

    model = Bert(HP)
    model.bind(Binder({name for name, _ in head}.__contains__, Tensors()))
    forward: Any = SimpleNamespace(ctx=c.ctx)
    return c.compute(model.score(forward, c.input(X)))[0, 0]


@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        ({"cls": SCORES}, np.tanh(X @ SCORES.T)),
        ({"cls.output": SCORES}, X @ SCORES.T),
        ({"cls": DENSE, "cls.output": SCORES}, np.tanh(X @ DENSE.T) @ SCORES.T),
    ],
)
def test_score_is_a_dense_layer_a_projection_or_both(
    matrices: dict[str, np.ndarray], expected: np.ndarray
) -> None:
    np.testing.assert_allclose(scores(matrices), expected, rtol=1e-4, atol=1e-5)
