"""The kernels of recurrent layers against the formulas of their papers in float64, token by token."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.errors import GgmlError
from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, Storage
from engine.graph.ops.attention import PagedAttention
from engine.graph.ops.recurrence import RecurrentStates

CPU = next(d for d in devices() if d.type == "cpu")
Arrays = dict[str, np.ndarray]
Build = Callable[[Any, RecurrentStates, dict[str, Any]], Any]
N_SLOTS = 4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Bench:
    """An operation with its inputs, numpy [rows, columns], and the states of its slots."""

    def __init__(self, build: Build, state: int, arrays: Arrays, weights: Arrays) -> None:
        self.build, self.arrays, self.weights = build, arrays, weights
        self.memory: Any = Storage(1 + len(weights))
        self.states = self.memory.new(F32, (state, N_SLOTS))
        self.tensors = {name: self.memory.new(F32, x.shape[::-1]) for name, x in weights.items()}
        self.memory.allocate(CPU.buffer_types()[-1])
        for name, x in weights.items():
            self.tensors[name].set(x.astype(np.float32).tobytes())
        self.clear()

    def clear(self) -> None:
        """Not zeros: a sequence that begins must not read what is there."""
        self.states.set(np.full(self.states.nbytes // 4, 1e9, np.float32).tobytes())

    def run(self, sequences: list[tuple[int, list[int], int]], threads: int = 2) -> np.ndarray:
        """sequences: (n_past, rows of the arrays, slot); slot -1 repeats the row before. [rows, columns]"""
        rows = [row for _, part, _ in sequences for row in part]
        ctx: Any = Context(32, graph_size=16)
        paged = PagedAttention(1)
        inputs = {name: ctx.input(F32, (x.shape[1], len(rows)), name) for name, x in self.arrays.items()}
        states = RecurrentStates(paged, 1, self.states, [0])
        out = ctx.output(self.build(ctx, states, inputs | self.tensors))
        graph = ctx.graph(16)
        graph.add(out)
        sched = Sched([Backend(CPU, threads)], 64)
        sched.allocate(graph)
        batch, row = [], 0
        for n_past, part, slot in sequences:
            batch.append((array("i", range(n_past + len(part))), n_past, len(part), row, slot))
            row += len(part)
        paged.prepare(batch)
        for name, x in self.arrays.items():
            inputs[name].set(x[rows].astype(np.float32).tobytes())
        sched.compute(graph)
        return np.frombuffer(out.get(), np.float32).reshape(len(rows), -1)


def convolution(n: int = 21, kernel: int = 4) -> tuple[Bench, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((12, n + 3))
    weights = {"w": rng.standard_normal((n, kernel)), "bias": rng.standard_normal(n)}

    def build(ctx: Any, states: RecurrentStates, t: dict[str, Any]) -> Any:
        part = ctx.view(t["x"], (n, t["x"].shape[1]), (t["x"].strides[1],), 12)  # rows with a stride
        return states.convolution(ctx, 0, part, t["w"], t["bias"], True)

    padded = np.concatenate([np.zeros((kernel - 1, n)), x[:, 3:]])
    sums = np.stack([(padded[t : t + kernel].T * weights["w"]).sum(1) + weights["bias"] for t in range(12)])
    return Bench(build, (kernel - 1) * n, {"x": x}, weights), sums * sigmoid(sums)


def scan(d_state: int, *, per_channel: bool = False, groups: int = 2) -> tuple[Bench, np.ndarray]:
    """Mamba 2 with four heads, or Mamba."""
    rng = np.random.default_rng(2)
    heads, dim = (12, 1) if per_channel else (4, 3)
    groups = 1 if per_channel else groups
    n = heads * dim
    arrays = {
        "x": rng.standard_normal((12, n)),
        "dt": rng.standard_normal((12, heads)),
        "b": rng.standard_normal((12, groups * d_state)),
        "c": rng.standard_normal((12, groups * d_state)),
    }
    a = -rng.uniform(0.2, 2, (heads, d_state if per_channel else 1))
    weights = {"a": a, "d": rng.standard_normal(heads), "bias": rng.standard_normal(heads)}

    def build(ctx: Any, states: RecurrentStates, t: dict[str, Any]) -> Any:
        inputs = [t["x"], t["dt"], t["a"], t["b"], t["c"], t["d"]]
        return states.scan(ctx, 0, 0, d_state, inputs, t["bias"])

    expected, h = [], np.zeros((heads, dim, d_state))
    for i in range(12):
        x = arrays["x"][i].reshape(heads, dim)
        dt = np.log1p(np.exp(arrays["dt"][i] + weights["bias"]))[:, None]
        keys = (arrays[name][i].reshape(groups, d_state).repeat(heads // groups, 0) for name in ("b", "c"))
        b, c = keys
        h = h * np.exp(dt * a)[:, None] + (dt * x)[:, :, None] * b[:, None]
        expected.append(((h * c[:, None]).sum(-1) + weights["d"][:, None] * x).ravel())
    return Bench(build, n * d_state, arrays, weights), np.array(expected)


def delta(d: int, *, tiled: bool) -> tuple[Bench, np.ndarray]:
    """Two key heads, six value heads."""
    rng = np.random.default_rng(3)
    heads, keys, dim = 6, 2, 5
    arrays = {
        "qkv": rng.standard_normal((12, 2 * keys * d + heads * dim)),
        "a": rng.standard_normal((12, heads)),
        "b": rng.standard_normal((12, heads)),
    }
    weights = {"rate": -rng.uniform(0.2, 2, heads), "bias": rng.standard_normal(heads)}

    def build(ctx: Any, states: RecurrentStates, t: dict[str, Any]) -> Any:
        return states.delta(ctx, 0, 0, (d, keys), [t[n] for n in ("qkv", "a", "b", "rate", "bias")], tiled)

    expected, s = [], np.zeros((heads, d, dim))
    order = np.arange(heads) % keys if tiled else np.arange(heads) // (heads // keys)
    for i in range(12):
        q, k = (arrays["qkv"][i, j * keys * d : (j + 1) * keys * d].reshape(keys, d)[order] for j in (0, 1))
        v = arrays["qkv"][i, 2 * keys * d :].reshape(heads, dim)
        q, k = (x / np.sqrt((x * x).sum(1, keepdims=True) + 1e-6) for x in (q, k))
        s = s * np.exp(weights["rate"] * np.log1p(np.exp(arrays["a"][i] + weights["bias"])))[:, None, None]
        error = sigmoid(arrays["b"][i])[:, None] * (v - np.einsum("hkd,hk->hd", s, k))
        s = s + k[:, :, None] * error[:, None]
        expected.append((np.einsum("hkd,hk->hd", s, q) / np.sqrt(d)).ravel())
    return Bench(build, heads * dim * d, arrays, weights), np.array(expected)


CASES = {
    "convolution": lambda: convolution(),
    "convolution of 2": lambda: convolution(kernel=2),
    "Mamba": lambda: scan(16, per_channel=True),
    "Mamba, part of a vector": lambda: scan(19, per_channel=True),
    "Mamba 2": lambda: scan(32),
    "Mamba 2, part of a vector": lambda: scan(11, groups=4),
    "delta net": lambda: delta(32, tiled=False),
    "delta net, tiled, part of a vector": lambda: delta(27, tiled=True),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_match_those_of_the_formula(case: str) -> None:
    bench, expected = CASES[case]()
    actual = bench.run([(0, list(range(12)), 2)])
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_rows_are_bit_identical_in_any_batch_and_for_any_chunks(case: str) -> None:
    bench, _ = CASES[case]()
    whole = bench.run([(0, list(range(12)), 0)], threads=1)
    bench.clear()
    first = bench.run([(0, list(range(5)), 3), (0, [7, 8, 9], 1)])
    second = bench.run([(3, [10, 11], 1), (5, [5], 3)])
    third = bench.run([(6, list(range(6, 12)), 3), (0, [0], 2)])
    np.testing.assert_array_equal(np.concatenate([first[:5], second[2:], third[:6]]), whole)
    np.testing.assert_array_equal(third[6], whole[0])


@pytest.mark.parametrize("case", CASES)
def test_padding_repeats_the_row_before_and_changes_no_state(case: str) -> None:
    bench, _ = CASES[case]()
    whole = bench.run([(0, list(range(12)), 0)])
    padded = bench.run([(0, list(range(4)), 1), (3, [3], -1), (3, [3], -1)])
    np.testing.assert_array_equal(padded[4], padded[3])
    np.testing.assert_array_equal(padded[5], padded[3])
    np.testing.assert_array_equal(bench.run([(4, [4], 1)])[0], whole[4])


def test_inputs_that_do_not_fit_are_refused() -> None:
    ctx: Any = Context(32)
    states = RecurrentStates(PagedAttention(2), 2, ctx.new(F32, (60, 4)), [0, 20])
    assert states.n_slots == 4
    x, w = ctx.new(F32, (8, 3)), ctx.new(F32, (4, 8))
    with pytest.raises(GgmlError, match="24 elements does not fit the 20 of layer 0"):
        states.convolution(ctx, 0, x, w)
    states.convolution(ctx, 1, x, w)
    with pytest.raises(GgmlError, match="no recurrent state of layer 2"):
        states.convolution(ctx, 2, x, w)
    with pytest.raises(GgmlError, match="must be F32 with 32 elements"):
        states.convolution(ctx, 1, x, ctx.new(F32, (4, 7)))
    with pytest.raises(GgmlError, match="2 to 8"):
        states.convolution(ctx, 1, x, ctx.new(F32, (9, 8)))
    heads = [ctx.new(F32, (n, 3)) for n in (8, 2, 4, 4)]
    a, d = ctx.new(F32, (1, 2)), ctx.new(F32, (2,))
    with pytest.raises(GgmlError, match="do not fit together"):
        states.scan(ctx, 1, 0, 3, [heads[0], heads[1], a, heads[2], heads[3], d])
    with pytest.raises(GgmlError, match="48 elements does not fit the 40"):
        states.scan(ctx, 1, 16, 4, [heads[0], heads[1], a, heads[2], heads[3], d])
    with pytest.raises(GgmlError, match="do not fit together"):
        states.delta(ctx, 1, 0, (4, 2), [heads[0], heads[1], heads[1], d, d])
    with pytest.raises(GgmlError, match="no recurrent state"):
        RecurrentStates(PagedAttention(1), 1).convolution(ctx, 0, x, w)
