"""Packed matrices against the floats that their blocks mean, with every kernel set that runs here."""

from __future__ import annotations

import platform
from itertools import product
from typing import Any

import gguf
import numpy as np
import pytest

import engine
from engine.errors import ConfigError, GgmlError
from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, I32, type_id
from engine.graph.ops.packed import (
    PackedMatrix,
    can_pack,
    instruction_set,
    instruction_sets,
    is_faster_packed,
    use_instruction_set,
)
from server.models.bundled import bundled_model
from support.quick import every, matrix

CPU = next(d for d in devices() if d.type == "cpu")
TYPES = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"),
    *("q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_xs", "mxfp4"),
)
# Where the halves of a super block are.
HALVES = {"q2_K": (80, 82), "q3_K": (108,), "q4_K": (0, 2), "q5_K": (0, 2), "q6_K": (208,)}


def quantized(kind: str, n_in: int, n_out: int, seed: int = 0) -> tuple[bytes, np.ndarray]:
    """A random matrix in ggml's blocks, and the floats that they mean [n_out, n_in]."""
    number = gguf.GGMLQuantizationType[kind.upper()]
    rng = np.random.default_rng(seed)
    # Any bytes are a block; only its halves must be numbers of a sensible size.
    n_block, size = gguf.GGML_QUANT_SIZES[number]
    blocks = rng.integers(0, 256, (n_out, n_in // n_block, size), dtype=np.uint8)
    if kind == "mxfp4":  # an exponent
        blocks[:, :, 0] = rng.integers(114, 120, blocks.shape[:2])
    else:
        for position in HALVES.get(kind, (0, 2) if kind in ("q4_1", "q5_1") else (0,)):
            halves = (rng.random((n_out, n_in // n_block)) * 0.002 + 0.0005).astype(np.float16)
            blocks[:, :, position : position + 2] = halves.view(np.uint8).reshape(n_out, n_in // n_block, 2)
    blocks = blocks.reshape(n_out, -1)
    return blocks.tobytes(), gguf.quants.dequantize(blocks, number)


def times(kind: str, data: bytes, n_out: int, x: np.ndarray, threads: int = 2) -> np.ndarray:
    """x [rows, n_in] -> [rows, n_out]; computed twice, to see the work handed out anew."""
    n_rows, n_in = x.shape
    home = Context(1)
    matrix = PackedMatrix(home, type_id(kind), (n_in, n_out), "matrix")
    home.allocate(CPU.buffer_types()[-1])
    matrix.load(data, threads)
    ctx: Any = Context(8, graph_size=8)
    tx = ctx.input(F32, (n_in, n_rows), "x")
    out = ctx.output(matrix.times(ctx, tx))
    graph = ctx.graph(8)
    graph.add(out)
    sched = Sched([Backend(CPU, threads)], 32)
    sched.allocate(graph)
    results = []
    for _ in range(2):
        tx.set(x.tobytes())
        sched.compute(graph)
        results.append(np.frombuffer(out.get(), np.float32).reshape(n_rows, n_out))
    np.testing.assert_array_equal(results[0], results[1])
    return results[0]


# Inputs, outputs, rows.
SHAPES = [
    (32, 16, 1),
    (64, 48, 3),
    (2048, 256, 1),
    (96, 1600, 2),
    (256, 64, 7),
    (160, 32, 31),
    (64, 160, 300),
]


@pytest.mark.parametrize("threads", [1, 3])
def test_matrix_packed_from_a_file_equals_the_one_packed_from_memory(threads, tmp_path):
    n_in, n_out = 512, 1616  # several pieces, the last of which is shorter
    data, _ = quantized("q4_0", n_in, n_out)
    path = tmp_path / "weights"
    path.write_bytes(b"before" + data)
    home = Context(2)
    one, other = (PackedMatrix(home, type_id("q4_0"), (n_in, n_out), name) for name in ("one", "other"))
    home.allocate(CPU.buffer_types()[-1])
    one.load(data)
    with path.open("rb") as file:
        assert other.read(file.fileno(), 6, threads)
        assert one.tensor.get() == other.tensor.get()
        assert not other.read(file.fileno(), 7, threads)
        with pytest.raises(OSError, match="Bad file descriptor"):
            other.read(-1, 0)


# A quick run multiplies every type by few rows and by many, and one of each size of blocks in every shape.
@pytest.mark.parametrize(
    ("shape", "kind"),
    matrix(
        product(SHAPES, TYPES),
        lambda case: case[0] == (160, 32, 31) or case[1] in ("q4_0", "q4_K"),
    ),
)
def test_products_match_the_reference(shape: tuple[int, int, int], kind: str) -> None:
    n_in, n_out, n_rows = shape
    n_in *= gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.upper()]][0] // 32
    data, weights = quantized(kind, n_in, n_out)
    x = np.random.default_rng(1).standard_normal((n_rows, n_in)).astype(np.float32)
    # What 8-bit activations are: per block of 32 the largest is 127, the others are rounded.
    blocks = x.reshape(n_rows, -1, 32)
    scale = np.abs(blocks).max(2, keepdims=True) / 127
    rounded = (np.rint(blocks / scale) * scale).reshape(x.shape)
    got = times(kind, data, n_out, x)
    size = np.abs(weights).mean() * np.sqrt(n_in)
    np.testing.assert_allclose(got, rounded.astype(np.float64) @ weights.T, rtol=1e-4, atol=1e-3 * size)
    assert np.sqrt(np.mean((got - x @ weights.T) ** 2)) < 0.02 * size


@pytest.mark.parametrize("kind", TYPES)
def test_a_row_does_not_depend_on_the_batch(kind: str) -> None:
    """Bit for bit: the same row alone, among others, and with any number of threads."""
    data, _ = quantized(kind, 256, 96)
    x = np.random.default_rng(2).standard_normal((150, 256)).astype(np.float32)
    together = times(kind, data, 96, x)
    for rows in (slice(0, 1), slice(3, 5), slice(7, 20), slice(100, 150)):
        np.testing.assert_array_equal(times(kind, data, 96, x[rows], threads=1), together[rows])
    np.testing.assert_array_equal(times(kind, data, 96, x, threads=3), together)


@pytest.mark.parametrize("kind", TYPES)
def test_products_of_zeros_and_extremes_match_the_reference(kind: str) -> None:
    data, weights = quantized(kind, 256, 16)
    x = np.zeros((3, 256), np.float32)
    x[1, 5] = 3e30
    x[2] = -1e-30
    got = times(kind, data, 16, x)
    assert (got[0] == 0).all()
    np.testing.assert_allclose(got[1], weights[:, 5] * 3e30, rtol=1e-3, atol=1e25)
    assert np.isfinite(got).all()


# Every fourth: of each type two or three of the nine.
@pytest.mark.parametrize(
    ("kind", "value", "at"), every(4, product(TYPES, [np.nan, np.inf, -np.inf], [3, 40, 31]))
)
def test_values_that_are_not_finite_reach_the_result(kind: str, value: float, at: int) -> None:
    """Hidden in 8 bits it would be served as text; as NaN logits it is an error."""
    data, weights = quantized(kind, 256, 16)
    x = np.ones((3, 256), np.float32)
    x[1, at] = value
    x[2] = 1e-40
    got = times(kind, data, 16, x)
    assert np.isnan(got[1]).all()
    np.testing.assert_allclose(got[0], weights.sum(1), rtol=2e-3, atol=1e-3 * np.abs(weights).sum(1).max())
    assert np.isfinite(got[2]).all()


def test_unsuitable_matrices_are_refused() -> None:
    assert not can_pack(type_id("f16"), (32, 16))
    assert not can_pack(type_id("q4_0"), (32, 15))
    assert not can_pack(type_id("q4_0"), (32, 15, 4))
    assert not can_pack(type_id("q4_0"), (32, 16, 4, 1))
    with pytest.raises(GgmlError, match="cannot be packed"):
        PackedMatrix(Context(1), type_id("q8_0"), (32, 15), "odd")
    for kind in TYPES:
        ctx: Any = Context(4)
        matrix = PackedMatrix(ctx, type_id(kind), (256, 16), "m")
        with pytest.raises(GgmlError, match="no memory"):
            matrix.load(bytes(1000))
        with pytest.raises(GgmlError, match="does not go with"):
            matrix.times(ctx, ctx.new(F32, (64, 1)))
        with pytest.raises(GgmlError, match="does not go with"):
            matrix.times_experts(ctx, ctx.new(F32, (256, 1, 3)), ctx.new(I32, (2, 4)))
        ctx.allocate(CPU.buffer_types()[-1])
        with pytest.raises(GgmlError, match="bytes"):
            matrix.load(bytes(10))


@pytest.mark.parametrize("kind", TYPES)
def test_products_of_extreme_bits_match_the_reference(kind: str) -> None:
    """All bits set, and the largest activations of either sign: no sum overflows on its way."""
    number = gguf.GGMLQuantizationType[kind.upper()]
    n_block, size = gguf.GGML_QUANT_SIZES[number]
    for fill in (0x00, 0x7F, 0x80, 0xFF):
        blocks = np.full((16, 512 // n_block, size), fill, np.uint8)
        if kind == "mxfp4":
            blocks[:, :, 0] = 120
        else:
            for position in HALVES.get(kind, (0, 2) if kind in ("q4_1", "q5_1") else (0,)):
                blocks[:, :, position : position + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
        blocks = blocks.reshape(16, -1)
        weights = gguf.quants.dequantize(blocks, number).astype(np.float64)
        x = np.stack([np.full(512, 1.0), np.full(512, -1.0), np.tile([1.0, -1.0], 256)]).astype(np.float32)
        got = times(kind, blocks.tobytes(), 16, x)
        np.testing.assert_allclose(got, x @ weights.T, rtol=1e-4, atol=1e-5 * np.abs(weights).sum(1).max())


def test_kernel_set_can_be_selected_by_name(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert instruction_set() == kernels
    assert instruction_sets()[-1] == "portable"
    with pytest.raises(ConfigError, match=r"GGSERVE_CPU_KERNELS=sse9: unknown; this build has .*portable"):
        use_instruction_set("sse9")
    assert instruction_set() == kernels
    use_instruction_set("")
    assert instruction_set() == instruction_sets()[0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64's sets")
def test_kernel_set_that_the_processor_lacks_is_refused() -> None:
    lacking = [name for name in ("avx512vnni", "avxvnni") if name not in instruction_sets()]
    for name in lacking:
        with pytest.raises(ConfigError, match=f"{name}: this processor cannot run it; it runs .*portable"):
            use_instruction_set(name)


def test_repack_off_leaves_the_layout_of_the_file() -> None:
    with engine.load(bundled_model(), engine.ModelParameters(repack=False, n_threads=1)) as model:
        assert set(model.weights.placement.values()) == {"CPU"}
    with engine.load(bundled_model(), engine.ModelParameters(n_threads=1)) as model:
        packed = "CPU_PACKED" in model.weights.placement.values()
        assert packed == is_faster_packed(type_id("q8_0"))


def test_mxfp4_exponents_match_the_reference() -> None:
    """Half of 2^(e - 127): the smallest are subnormal floats. No model has weights near the largest."""
    n_out = 240
    blocks = np.full((n_out, 17), 0x22, np.uint8)  # every weight is 1 times 2^(e - 127)
    blocks[:, 0] = np.arange(n_out)
    got = times("mxfp4", blocks.tobytes(), n_out, np.eye(1, 32, dtype=np.float32))[0]
    np.testing.assert_allclose(got.astype(np.float64), 2.0 ** (np.arange(n_out) - 127.0), rtol=1e-5)


def times_experts(matrix: PackedMatrix, x: np.ndarray, ids: np.ndarray, threads: int) -> np.ndarray:
    """x [rows, n_used | 1, n_in], ids [rows, n_used] -> [rows, n_used, n_out].

    The ids are a view, as of top-k.
    """
    ctx: Any = Context(16, graph_size=16)
    rows, n_used = ids.shape
    tx, wide = ctx.input(F32, x.shape[::-1], "x"), ctx.input(I32, (n_used + 3, rows), "ids")
    selected = ctx.view(wide, (n_used, rows), (wide.strides[1],))
    # Two products with the same rows and ids: the second shares what the first prepared.
    out = [ctx.output(matrix.times_experts(ctx, tx, selected)) for _ in range(2)]
    graph = ctx.graph(16)
    for each in out:
        graph.add(each)
    sched = Sched([Backend(CPU, threads)], 64)
    sched.allocate(graph)
    for _ in range(2):  # to see the work handed out anew
        tx.set(x.tobytes())
        wide.set(np.pad(ids, ((0, 0), (0, 3)), constant_values=10**6).astype(np.int32).tobytes())
        sched.compute(graph)
    results = [np.frombuffer(each.get(), np.float32).reshape(rows, n_used, matrix.n_out) for each in out]
    np.testing.assert_array_equal(*results)
    return results[0]


# A quick run takes every type once.
@pytest.mark.parametrize(
    ("n_rows", "own_rows", "kind"),
    matrix(
        product((1, 5, 170), (True, False), TYPES),
        lambda case: case[:2] == (5, True) or case[2] in ("q4_K", "mxfp4"),
    ),
)
def test_product_of_experts_equals_each_expert_alone(n_rows: int, own_rows: bool, kind: str) -> None:
    """Bit for bit, whichever rows share an expert; some experts have none, one has more than a tile."""
    n_in, n_out, n_experts, n_used = 256, 48, 6, 3
    data, _ = quantized(kind, n_in, n_out * n_experts)
    home = Context(1)
    matrix = PackedMatrix(home, type_id(kind), (n_in, n_out, n_experts), "experts")
    home.allocate(CPU.buffer_types()[-1])
    matrix.load(data, 2)
    rng = np.random.default_rng(n_rows)
    odds = [0.6, 0.1, 0.1, 0.1, 0.0, 0.1]
    ids = np.array([rng.choice(n_experts, n_used, False, odds) for _ in range(n_rows)])
    x = rng.standard_normal((n_rows, n_used if own_rows else 1, n_in)).astype(np.float32)
    got = times_experts(matrix, x, ids, threads=1 if n_rows == 1 else 3)
    each = np.broadcast_to(x, (n_rows, n_used, n_in))
    size = len(data) // n_experts
    for expert in range(n_experts):
        mine = np.nonzero(ids == expert)
        if len(mine[0]):
            weights = data[expert * size : (expert + 1) * size]
            alone = times(kind, weights, n_out, np.ascontiguousarray(each[mine]))
            np.testing.assert_array_equal(got[mine], alone)
