"""Which tensors an attention layer names, and in which shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.nn.attention import Attention, split_heads
from engine.nn.binder import Binder
from support.builders.hparams import hparams
from support.references.calculator import Calculator

HP = hparams(2, n_embd=16, n_head=(4, 2), n_head_kv=(2, 1), head_dim_v=8)


def shapes(layer: int, names: tuple[str, ...] = (), **options: Any) -> dict[str, tuple[int, ...]]:
    binder = Binder({f"blk.{layer}.{name}" for name in names}.__contains__)
    Attention(binder, HP, layer, **options)
    return {spec.name.removeprefix(f"blk.{layer}."): spec.shape for spec in binder.specs}


def test_projections_have_the_heads_of_their_layer() -> None:
    assert shapes(0) == {
        "attn_q.weight": (16, 16),
        "attn_k.weight": (16, 8),
        "attn_v.weight": (16, 16),
        "attn_output.weight": (32, 16),
    }
    assert shapes(1)["attn_k.weight"] == (16, 4)


def test_a_fused_matrix_replaces_three() -> None:
    assert shapes(0, ("attn_qkv.weight", "attn_qkv.bias")) == {
        "attn_qkv.weight": (16, 40),
        "attn_qkv.bias": (40,),
        "attn_output.weight": (32, 16),
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"qk_norm": "head"}, [(4,), (4,)]),
        ({"qk_norm": "head", "norm_per_head": True}, [(4, 4), (4, 2)]),
        ({"qk_norm": "row"}, [(16,), (8,)]),
    ],
)
def test_norms_of_q_and_k_have_the_shape_of_their_kind(
    options: dict[str, Any], expected: list[tuple[int, ...]]
) -> None:
    def norm(binder: Binder, name: str, shape: tuple[int, ...], layer: int) -> Any:
        return binder.rms_norm(name, shape, HP.eps, layer)

    named = shapes(0, norm=norm, **options)
    assert [named[f"attn_{part}_norm.weight"] for part in "qk"] == expected


def test_sinks_are_one_number_for_each_head() -> None:
    assert shapes(0, sinks=True)["attn_sinks.weight"] == (4,)


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_clamp_applies_only_where_the_model_has_one(limit: float) -> None:
    c = Calculator()
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 16)
    attention = Attention(Binder(lambda name: False), replace(HP, clamp_qkv=limit), 0)
    out = c.compute(c.ctx.scale(attention.clamp(c.ctx, c.input(x)), 1.0))
    np.testing.assert_allclose(out[0, 0], x.clip(-limit, limit) if limit else x)


def test_heads_of_a_view_are_split_without_a_copy() -> None:
    c = Calculator()
    both = np.arange(3 * 24, dtype=np.float32).reshape(3, 24)
    whole = c.input(both)
    view = c.ctx.view(whole, (8, 3), (whole.strides[1],), 4 * 16)
    out = c.compute(c.ctx.cont(split_heads(c.ctx, view, 4, 2)))
    np.testing.assert_array_equal(out[0], both[:, 16:].reshape(3, 2, 4))
