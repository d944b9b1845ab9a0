"""What follows from hyperparameters: scales, windows, and YaRN's exact ramp."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.hparams import Rope
from support.builders.hparams import hparams

GLOBAL, LOCAL = Rope(mode="neox", n_dims=8), Rope(mode="neox", n_dims=8, freq_base=100.0)
HP = hparams(2, head_dim_k=16, rope=GLOBAL)


def test_scale_of_scores_matches_that_of_the_file_or_of_the_heads() -> None:
    assert HP.kq_scale == 0.25
    assert replace(HP, attention_scale=0.5).kq_scale == 0.5


def test_layers_with_a_window_have_their_own_rotation_if_there_is_one() -> None:
    windowed = replace(HP, windows=(0, 8))
    assert [windowed.window(i) for i in (0, 1)] == [0, 8]
    assert [HP.window(i) for i in (0, 1)] == [0, 0]
    assert [windowed.rope_of(i) for i in (0, 1)] == [GLOBAL, GLOBAL]
    local = replace(windowed, rope_local=LOCAL)
    assert [local.rope_of(i) for i in (0, 1)] == [GLOBAL, LOCAL]


def test_unrounded_yarn_keeps_fast_dimensions_and_scales_slow_ones() -> None:
    """Peng 2023, arXiv 2309.00071, section 3.4: the ends of the ramp are not rounded."""
    rope = Rope(mode="neox", n_dims=64, freq_scale=0.25, n_ctx_orig=4096, ext_factor=1.0)
    exact = rope.unrounded_yarn()
    assert (exact.ext_factor, exact.freq_scale) == (0.0, 1.0)
    assert len(exact.factors) == 32
    assert exact.factors[0] == 1.0
    assert exact.factors[-1] == pytest.approx(4.0)
    assert list(exact.factors) == sorted(exact.factors)
    assert len({f for f in exact.factors if 1.0 < f < 3.999}) > 4  # the ramp between them
    assert exact.attn_factor == pytest.approx(1.0 + 0.1 * math.log(4.0))
