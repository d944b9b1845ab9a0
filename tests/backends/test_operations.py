"""Every operation of our graphs, on a device and on the CPU: shapes, strides, types, broadcasting.

The CPU gets quantized weights as the floats that they mean, since its own kernels round activations to eight
bits. Errors are relative to the root mean square of what is expected.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.ggml.backend import devices
from engine.ggml.tensor import F16, F32, row_size
from engine.hparams import Rope
from support.references.calculator import CPU, Calculator

DEVICE = os.environ.get("GGSERVE_TEST_DEVICE", "CLBlast0")
WEIGHTS = [
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
]

Build = Callable[[Any, Calculator], Any]  # the context, what gives it inputs -> the result


def numbers(*shape: int, seed: int = 0, low: float | None = None) -> np.ndarray:
    """Normally distributed, in numpy's order; from `low` to 4 if that is given."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, shape) if low is None else rng.uniform(low, 4, shape)
    return values.astype(np.float32)


def same(build: Build, tolerance: float = 2e-6) -> np.ndarray:
    """Computes it in both places and compares; returns the device's, without axes of length 1."""
    device = next(d for d in devices() if d.name == DEVICE)
    collected = []
    for where in (CPU, device):
        c = Calculator(where)
        collected.append(c.compute(build(c.ctx, c)))
    expected, got = collected
    assert got.shape == expected.shape
    if got.dtype == np.int32:
        assert np.array_equal(got, expected)
        return got.squeeze()
    assert np.isfinite(got).all()
    scale = math.sqrt(np.square(expected, dtype=np.float64).mean()) or 1.0
    error = np.abs(got - expected).max() / scale
    assert error <= tolerance, f"error {error:.1e}"
    return got.squeeze()


def window(ctx: Any, tensor: Any, shape: tuple[int, ...], at: int = 0) -> Any:
    """The corner of a tensor that begins `at` elements into each row: its rows lie apart."""
    size = tensor.strides[0]
    return ctx.view(tensor, shape, tensor.strides[1 : len(shape)], at * size)


SHAPES = [(1,), (5,), (64,), (3, 64), (2, 3, 33), (2, 2, 3, 40), (2, 1000), (1, 4097)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((7,), (7,)),
        ((7,), (1,)),
        ((3, 5, 64), (64,)),
        ((3, 5, 64), (1, 5, 64)),
        ((3, 5, 64), (3, 1, 1)),
        ((2, 3, 4, 33), (2, 1, 4, 1)),
        ((2, 4, 6, 33), (1, 2, 3, 11)),  # repeated, not only stretched
        ((1, 1, 1, 1), (1, 1, 1, 1)),
        ((7, 1000), (7, 1)),
    ],
)
@pytest.mark.parametrize("name", ["add", "mul", "div"])
def test_operation_of_two_operands_matches_the_cpu(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    low = 0.5 if name == "div" else None
    same(lambda ctx, c: getattr(ctx, name)(c.input(numbers(*a)), c.input(numbers(*b, seed=1, low=low))))


@pytest.mark.parametrize("name", ["add", "mul", "div"])
def test_operation_of_two_strided_operands_matches_the_cpu(name: str) -> None:
    def build(ctx: Any, c: Calculator) -> Any:
        a = ctx.permute(c.input(numbers(6, 4, 5)), 0, 2, 1)  # [5, 6, 4]
        b = window(ctx, c.input(numbers(6, 9, seed=1, low=0.5)), (5, 6), at=3)
        return getattr(ctx, name)(a, b)

    same(build)


ONE: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "scale": (lambda ctx, x: ctx.scale(x, -1.7), 2e-6),
    "clamp": (lambda ctx, x: ctx.clamp(x, -0.5, 0.75), 0),
    "tanh": (lambda ctx, x: ctx.tanh(x), 2e-6),
    "silu": (lambda ctx, x: ctx.activation(x, "silu"), 2e-6),
    "gelu": (lambda ctx, x: ctx.activation(x, "gelu"), 2e-3),  # the CPU looks it up in a table of halves
    "gelu_of_parts": (lambda ctx, x: ctx.gelu_of_parts(x), 2e-6),
    "gelu_erf": (lambda ctx, x: ctx.activation(x, "gelu_erf"), 2e-6),
    "relu": (lambda ctx, x: ctx.activation(x, "relu"), 0),
    "sigmoid": (lambda ctx, x: ctx.activation(x, "sigmoid"), 2e-6),
    "norm": (lambda ctx, x: ctx.norm(x, 1e-5), 1e-5),
    "rms_norm": (lambda ctx, x: ctx.rms_norm(x, 1e-6), 1e-5),
    "sum_rows": (lambda ctx, x: ctx.sum_rows(x), 1e-5),
    "softmax": (lambda ctx, x: ctx.softmax(x, scale=0.3), 1e-5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ONE)
def test_operation_of_one_operand_matches_the_cpu(name: str, shape: tuple[int, ...]) -> None:
    function, tolerance = ONE[name]
    same(lambda ctx, c: function(ctx, c.input(numbers(*shape) * 3 + 0.1)), tolerance)


@pytest.mark.parametrize("name", [name for name in ONE if name not in ("scale", "softmax", "gelu_of_parts")])
def test_operation_of_one_strided_operand_matches_the_cpu(name: str) -> None:
    function, tolerance = ONE[name]
    same(lambda ctx, c: function(ctx, window(ctx, c.input(numbers(5, 100)), (33, 5), at=17)), tolerance)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_erf", "relu", "swiglu_oai"])
@pytest.mark.parametrize("halves", [False, True])
def test_gated_activation_matches_the_cpu(name: str, halves: bool) -> None:
    def build(ctx: Any, c: Calculator) -> Any:
        if not halves:
            return ctx.gated(name, c.input(numbers(4, 65)), c.input(numbers(4, 65, seed=1)))
        both = c.input(numbers(4, 130) * 4)
        return ctx.gated(name, window(ctx, both, (65, 4)), window(ctx, both, (65, 4), at=65))

    same(build, 2e-3 if name == "gelu" else 3e-6)


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("max_bias", [0.0, 8.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(("heads", "rows", "n"), [(1, 1, 1), (4, 3, 33), (6, 2, 500), (3, 1, 3000)])
def test_masked_softmax_matches_the_cpu(
    heads: int, rows: int, n: int, sinks: bool, max_bias: float, kind: str
) -> None:
    mask = np.where(np.random.default_rng(2).uniform(size=(rows, n)) < 0.3, -np.inf, numbers(rows, n, seed=3))
    mask[:, 0] = 0  # each row sees something

    def build(ctx: Any, c: Calculator) -> Any:
        bias = c.input(mask.astype(kind))
        more = c.input(numbers(heads, seed=4)) if sinks else None
        return ctx.softmax(c.input(numbers(heads, rows, n) * 5), bias, 0.25, max_bias, more)

    same(build, 1e-5)


ROPES = {
    "whole heads": Rope(mode="interleaved", n_dims=64),
    "a part of them": Rope(mode="interleaved", n_dims=32),
    "halves": Rope(mode="neox", n_dims=64),
    "halves of a part": Rope(mode="neox", n_dims=48),
    "linear": Rope(mode="neox", n_dims=64, freq_base=1e6, freq_scale=0.25),
    "YaRN": Rope(mode="neox", n_dims=64, freq_scale=0.125, n_ctx_orig=4096, ext_factor=1.0),
}


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("rope", ROPES.values(), ids=list(ROPES))
def test_rope_matches_the_cpu(rope: Rope, strided: bool, factors: bool) -> None:
    positions = np.array([0, 1, 2, 77, 2048, 9, 9], np.int32)

    def build(ctx: Any, c: Calculator) -> Any:
        x = c.input(numbers(7, 9 * 64))
        # Heads as they lie in a fused product: rows of all of Q, K and V.
        heads = ctx.view(x, (64, 3, 7), (64 * 4, 9 * 64 * 4), 3 * 64 * 4 if strided else 0)
        divisors = c.input(numbers(rope.n_dims // 2, seed=1, low=0.5)) if factors else None
        return ctx.rope(heads if strided else ctx.cont(heads), c.input(positions), rope, divisors)

    same(build, 2e-4)  # angles of thousands, in float32


@pytest.mark.parametrize("columns", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize("type", WEIGHTS)
def test_mul_mat_matches_the_cpu(type: str, columns: int) -> None:
    w, x = numbers(67, 512), numbers(columns, 512, seed=1)
    same(lambda ctx, c: ctx.mul_mat(c.weights(w, type), c.input(x)), 1e-5)


@pytest.mark.parametrize("type", ["F32", "F16", "Q4_0", "Q6_K"])
@pytest.mark.parametrize("columns", [1, 12])
@pytest.mark.parametrize(("w", "x"), [((2,), (6,)), ((1,), (4,)), ((3, 2), (3, 4)), ((1, 2), (2, 2))])
def test_product_by_head_matches_the_cpu(
    type: str, columns: int, w: tuple[int, ...], x: tuple[int, ...]
) -> None:
    same(
        lambda ctx, c: ctx.mul_mat(
            c.weights(numbers(*w, 33, 256), type), c.input(numbers(*x, columns, 256, seed=1))
        ),
        1e-5,
    )


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("k", "m", "columns"), [(1, 1, 1), (5, 3, 2), (33, 50, 20), (100, 7, 1)])
def test_product_of_odd_lengths_matches_the_cpu(type: str, k: int, m: int, columns: int) -> None:
    same(
        lambda ctx, c: ctx.mul_mat(c.weights(numbers(m, k), type), c.input(numbers(columns, k, seed=1))), 1e-5
    )


@pytest.mark.parametrize("type", ["F32", "F16"])
@pytest.mark.parametrize("columns", [1, 30])
def test_product_of_permuted_heads_matches_the_cpu(type: str, columns: int) -> None:
    def build(ctx: Any, c: Calculator) -> Any:
        k = ctx.permute(c.weights(numbers(50, 2, 64), type), 0, 2, 1)  # cache rows [64, 2, 50] by heads
        q = ctx.permute(c.input(numbers(columns, 6, 64, seed=1)), 0, 2, 1)
        return ctx.mul_mat(k, q, precise=True)

    same(build, 1e-5)


@pytest.mark.parametrize("columns", [3, 20])
def test_product_of_strided_rows_matches_the_cpu(columns: int) -> None:
    def build(ctx: Any, c: Calculator) -> Any:
        x = window(ctx, c.input(numbers(columns, 700)), (512, columns), at=64)
        return ctx.mul_mat(c.weights(numbers(40, 512, seed=1), "Q4_K"), x)

    same(build, 1e-5)


@pytest.mark.parametrize("type", ["F32", "F16", "Q4_0", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("shared", [False, True], ids=["x by expert", "one x"])
@pytest.mark.parametrize("rows", [1, 17])
def test_product_of_experts_matches_the_cpu(type: str, shared: bool, rows: int) -> None:
    ids = np.stack([np.random.default_rng(i).permutation(6)[:3] for i in range(rows)]).astype(np.int32)
    x = numbers(rows, 1 if shared else 3, 256, seed=1)
    w = numbers(6, 40, 256)
    same(lambda ctx, c: ctx.mul_mat_id(c.weights(w, type), c.input(x), c.input(ids)), 1e-5)


def test_biases_of_experts_match_the_cpu() -> None:
    ids = np.array([[5, 1, 0], [2, 2, 3]], np.int32)
    same(lambda ctx, c: ctx.add_id(c.input(numbers(2, 3, 50)), c.input(numbers(6, 50, seed=1)), c.input(ids)))


@pytest.mark.parametrize(("rows", "n", "k"), [(1, 1, 1), (5, 8, 2), (3, 60, 60), (2, 1000, 4)])
def test_top_k_returns_the_largest(rows: int, n: int, k: int) -> None:
    got = same(lambda ctx, c: ctx.cont(ctx.top_k(c.input(numbers(rows, n)), k)))
    assert np.array_equal(got, np.argsort(-numbers(rows, n), axis=1)[:, :k].squeeze())


@pytest.mark.parametrize("type", WEIGHTS)
def test_get_rows_matches_the_cpu(type: str) -> None:
    ids = np.array([3, 0, 19, 3], np.int32)
    same(lambda ctx, c: ctx.get_rows(c.weights(numbers(20, 512), type), c.input(ids)), 1e-6)


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_set_rows_matches_the_cpu(type: str) -> None:
    ids = np.array([3, 0, 19], np.int64)

    def build(ctx: Any, c: Calculator) -> Any:
        return ctx.set_rows(c.empty((96, 20), type), c.input(numbers(3, 96)), c.input(ids))

    got = same(build, 1e-6)
    assert np.any(got[[0, 3, 19]], axis=1).all()
    assert not np.delete(got, [0, 3, 19], axis=0).any()


@pytest.mark.parametrize(("start", "end"), [(F32, F16), (F16, F32), (F32, F32)])
def test_cast_matches_the_cpu(start: int, end: int) -> None:
    kind = np.float16 if start == F16 else np.float32
    values = numbers(3, 4, 50).astype(kind)
    same(lambda ctx, c: ctx.cast(c.input(values), end), 0)
    same(lambda ctx, c: ctx.cast(ctx.permute(c.input(values), 2, 0, 1), end), 0)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int32])
def test_copy_of_a_permutation_is_exact(kind: type, axes: tuple[int, int, int]) -> None:
    values = (numbers(6, 5, 70) * 100).astype(kind)
    got = same(lambda ctx, c: ctx.cont(ctx.permute(c.input(values), *axes)), 0)
    assert np.array_equal(got, values.transpose([2 - axes.index(2 - i) for i in range(3)]))


def test_copy_that_flattens_is_exact() -> None:
    values = numbers(6, 5, 70)
    got = same(lambda ctx, c: ctx.cont_2d(ctx.permute(c.input(values), 0, 2, 1), 70 * 6, 5), 0)
    assert np.array_equal(got, values.transpose(1, 0, 2).reshape(5, -1))
    same(lambda ctx, c: ctx.scale(ctx.reshape(c.input(values), 35, 60), 2.0), 0)


@pytest.mark.parametrize("strided", [False, True])
def test_concatenation_matches_the_cpu(strided: bool) -> None:
    def build(ctx: Any, c: Calculator) -> Any:
        a, b = c.input(numbers(5, 3, 40)), c.input(numbers(5, 3, 24, seed=1))
        if strided:  # as the halves of Q in attention on latents
            a, b = ctx.permute(c.input(numbers(3, 5, 40)), 0, 2, 1), window(ctx, b, (17, 3, 5), at=4)
        return ctx.concat(a, b)

    assert same(build, 0).shape == (5, 3, 57 if strided else 64)


def test_rows_of_groups_match_the_cpu() -> None:
    """The best groups of each row, kept as they are, beside nothing, as when experts are chosen in groups."""

    def build(ctx: Any, c: Calculator) -> Any:
        groups = c.input(numbers(7, 4, 3))  # [3, 4, 7]
        ids = ctx.top_k(c.input(numbers(7, 4, seed=1)), 2)
        nothing = ctx.clamp(ctx.scale(groups, 0.0), -1e30, -1e30)
        return ctx.scale(ctx.set_rows(nothing, ctx.get_rows(groups, ids), ids), 1.0)

    same(build, 0)


def test_rows_times_their_weights_match_the_cpu() -> None:
    """As where weights scale what experts read."""
    same(lambda ctx, c: ctx.mul_mat(c.input(numbers(5, 33, 1)), c.input(numbers(5, 3, 1, seed=1))))


@pytest.mark.parametrize("type", ["F32", "F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    ("d", "heads", "kv_heads", "more"),
    [
        (64, 4, 4, {}),
        (128, 8, 2, {}),
        (32, 6, 1, {"max_bias": 8.0}),
        (64, 4, 2, {"softcap": 20.0}),
        (256, 2, 1, {"sinks": True}),
    ],
    ids=["plain", "groups", "ALiBi", "softcap", "sinks"],
)
def test_flash_attention_matches_the_cpu(
    d: int, heads: int, kv_heads: int, more: dict[str, Any], rows: int, type: str
) -> None:
    n_kv = 96
    mask = np.where(np.random.default_rng(2).uniform(size=(rows, n_kv)) < 0.4, -np.inf, 0)
    mask[:, 3] = 0
    if "max_bias" in more:
        mask -= np.arange(n_kv)[::-1]

    def build(ctx: Any, c: Calculator) -> Any:
        def cache(seed: int) -> Any:  # rows of all heads, as the cache has them
            table = c.weights(numbers(n_kv, kv_heads * d, seed=seed), type)
            by_head = (row_size(table.type, d), table.strides[1])
            return ctx.permute(ctx.view(table, (d, kv_heads, n_kv), by_head), 0, 2, 1)

        q = ctx.permute(c.input(numbers(rows, heads, d)), 0, 2, 1)
        options = dict(more)
        if options.pop("sinks", False):
            options["sinks"] = c.input(numbers(heads, seed=7))
        bias = c.input(mask.astype(np.float16))
        return ctx.flash_attention(q, cache(5), cache(6), bias, 1 / math.sqrt(d), **options)

    same(build, 2e-5)
