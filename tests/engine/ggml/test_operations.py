"""Operations of the wrapper against numpy, and what is refused before ggml could abort."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

from engine.errors import GgmlError
from engine.ggml.backend import map_host_memory
from engine.ggml.operations import Context
from engine.ggml.tensor import F32, type_id
from engine.hparams import Rope
from support.references.calculator import CPU, Calculator

RNG = np.random.default_rng(0)


def rand(*shape: int) -> np.ndarray:
    """Random float32 in numpy's order (the reverse of ggml's)."""
    return RNG.standard_normal(shape).astype(np.float32)


def test_products_and_broadcasts_match_numpy() -> None:
    c = Calculator()
    w, x, b = rand(5, 8), rand(3, 8), rand(5)
    out = c.ctx.add(c.ctx.mul_mat(c.input(w), c.input(x)), c.input(b))
    np.testing.assert_allclose(c.compute(out)[0, 0], x @ w.T + b, rtol=1e-5, atol=1e-5)


def test_heads_share_key_value_heads() -> None:
    c = Calculator()
    k, q = rand(2, 7, 16), rand(4, 3, 16)
    out = c.compute(c.ctx.mul_mat(c.input(k), c.input(q)))[0]
    np.testing.assert_allclose(out, np.einsum("hkd,hqd->hqk", k.repeat(2, 0), q), rtol=1e-4, atol=1e-5)


def test_norm_activation_scale_and_clamp_match_numpy() -> None:
    x, y = rand(4, 32), rand(4, 32)
    silu = x / (1 + np.exp(-x))
    for build, expected in (
        (lambda c, a, b: c.ctx.rms_norm(a, 1e-5), x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-5)),
        (lambda c, a, b: c.ctx.swiglu(a, b), silu * y),
        (lambda c, a, b: c.ctx.activation(a, "silu"), silu),
        (lambda c, a, b: c.ctx.activation(a, "relu"), np.maximum(x, 0)),
        (lambda c, a, b: c.ctx.tanh(c.ctx.scale(a, 0.5)), np.tanh(0.5 * x)),
        (lambda c, a, b: c.ctx.clamp(a, -0.5, 0.5), x.clip(-0.5, 0.5)),
        (lambda c, a, b: c.ctx.div(a, c.ctx.sum_rows(c.ctx.mul(b, b))), x / (y * y).sum(1, keepdims=True)),
    ):
        c = Calculator()
        got = c.compute(build(c, c.input(x), c.input(y)))[0, 0]
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)


def test_rows_are_read_and_written_at_indices() -> None:
    table, rows = rand(6, 4), rand(2, 4)
    c = Calculator()
    written = c.ctx.set_rows(c.input(table), c.input(rows), c.input(np.array([5, 2])))
    out = c.compute(c.ctx.get_rows(written, c.input(np.array([2, 0, 5], np.int32))))[0, 0]
    np.testing.assert_array_equal(out, np.stack([rows[1], table[0], rows[0]]))


@pytest.mark.parametrize(
    ("mode", "n_dims"), [("interleaved", 8), ("neox", 8), ("interleaved", 4), ("neox", 4)]
)
def test_rope_rotates_pairs_by_position(mode: str, n_dims: int) -> None:
    """Su 2021: pairs rotate by position * base^(-2i / n_dims); dimensions beyond n_dims stay."""
    x, positions = rand(3, 2, 8), np.array([0, 1, 40], np.int32)
    c = Calculator()
    rope = Rope(mode=mode, n_dims=n_dims, freq_base=100.0)
    got = c.compute(c.ctx.rope(c.input(x), c.input(positions), rope))[0]
    expected = x.copy()
    for i in range(n_dims // 2):
        a, b = (2 * i, 2 * i + 1) if mode == "interleaved" else (i, i + n_dims // 2)
        angle = positions * 100.0 ** (-2 * i / n_dims)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        expected[:, :, a] = x[:, :, a] * cos - x[:, :, b] * sin
        expected[:, :, b] = x[:, :, a] * sin + x[:, :, b] * cos
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_masked_softmax_and_top_k_match_numpy() -> None:
    x = rand(2, 6)
    mask = np.zeros((2, 6), np.float32)
    mask[0, 3:] = -np.inf
    c = Calculator()
    got = c.compute(c.ctx.softmax(c.input(x), c.input(mask), 0.5))[0, 0]
    e = np.exp(x * 0.5 + mask)
    np.testing.assert_allclose(got, e / e.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)
    c = Calculator()
    got = c.compute(c.ctx.cont(c.ctx.top_k(c.input(x), 3)))[0, 0]
    np.testing.assert_array_equal(got, np.argsort(-x, 1)[:, :3])


def test_view_reads_a_window_of_its_tensor() -> None:
    x = rand(5, 8)
    c = Calculator()
    a = c.input(x)
    got = c.compute(c.ctx.cont(c.ctx.view(a, (4, 3), (a.strides[1],), a.strides[1] + 8)))[0, 0]
    np.testing.assert_array_equal(got, x[1:4, 2:6])


def test_repeat_appends_the_rows_to_themselves() -> None:
    x = rand(2, 8)
    c = Calculator()
    np.testing.assert_array_equal(c.compute(c.ctx.repeat(c.input(x), 3))[0, 0], np.concatenate([x, x, x]))


@pytest.mark.parametrize(
    "build",
    [
        lambda x, a, b: x.mul_mat(a, b),
        lambda x, a, b: x.add(a, b),
        lambda x, a, b: x.swiglu(a, b),
        lambda x, a, b: x.get_rows(a, b),
        lambda x, a, b: x.set_rows(a, b, b),
        lambda x, a, b: x.rope(a, b, Rope(mode="interleaved", n_dims=8)),
        lambda x, a, b: x.reshape(a, 7, 7),
        lambda x, a, b: x.view(a, (8, 9), (32,)),
        lambda x, a, b: x.view(a, (8, 2), (32,), 4),
        lambda x, a, b: x.view(a, (8, 2), ()),
        lambda x, a, b: x.view(a, (8,), ()),
        lambda x, a, b: x.view(a, (4, 2, 2), (32,)),
        lambda x, a, b: x.view(a, (8, 3), (0,)),
        lambda x, a, b: x.repeat(a, 0),
        lambda x, a, b: x.permute(a, 0, 0, 1, 2),
        lambda x, a, b: x.top_k(a, 9),
        lambda x, a, b: x.softmax(a, b),
        lambda x, a, b: x.softmax(a, None, 1.0, 8.0),
        lambda x, a, b: x.flash_attention(a, b, b, b, 1.0),
        lambda x, a, b: x.mul_mat_id(a, b, b),
        lambda x, a, b: x.new(F32, (0,)),
        lambda x, a, b: x.new(F32, ()),
        lambda x, a, b: x.new(type_id("q8_0"), (33,)),
    ],
)
def test_files_on_which_ggml_would_abort_are_refused(build: Any) -> None:
    ctx: Any = Context(16)
    a, b = ctx.new(F32, (8, 2)), ctx.new(F32, (5, 3))
    with pytest.raises(GgmlError):
        build(ctx, a, b)


def test_adding_to_a_full_graph_is_an_error() -> None:
    ctx: Any = Context(8, graph_size=4)
    graph = ctx.graph(2)
    x = ctx.new(F32, (4,))
    graph.add(ctx.tanh(x))
    with pytest.raises(GgmlError, match="graph of 2 nodes is full"):
        graph.add(ctx.tanh(ctx.tanh(x)))


def test_tensor_in_a_full_context_is_an_error() -> None:
    ctx: Any = Context(2)
    a = ctx.new(F32, (8,))
    ctx.new(F32, (8,))
    with pytest.raises(GgmlError, match="full"):
        ctx.add(a, a)


def test_placing_a_tensor_outside_its_buffer_is_refused() -> None:
    area = memoryview(mmap.mmap(-1, 4096))
    other = memoryview(mmap.mmap(-1, 4096))
    buffer = map_host_memory(CPU.buffer_types()[-1], area[:64], 64)
    ctx: Any = Context(1)
    tensor = ctx.new(F32, (16,))
    for memory in (area[64:128], area[32:96], other[:64]):
        with pytest.raises(GgmlError, match="not inside"):
            ctx.place(tensor, buffer, memory)
    ctx.place(tensor, buffer, area[:64])
    with pytest.raises(GgmlError, match="has memory already"):
        ctx.place(tensor, buffer, area[:64])
