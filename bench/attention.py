"""Our attention over cached cells beside ggml's flash attention, for types of the cache.

`python -m bench.attention [--type f16 q8_0] [--kernels avx2]`: one thread, one process, timed as in
`bench.matmul`. Rows of a decode step belong to a sequence each; ggml gets an operation for each of them, over
its cells alone and one after the other, which is the best case for it. Our cells lie anywhere. Prints time of
ggml / ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from array import array
from typing import Any, NamedTuple

import gguf
import numpy as np

from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F16, F32, row_size, type_id
from engine.graph.ops.attention import PagedAttention
from engine.graph.ops.packed import instruction_set, use_instruction_set

TYPES = ("f16", "q8_0", "q4_0")
CPU = next(d for d in devices() if d.type == "cpu")


class Case(NamedTuple):
    """n_new rows of each of n sequences, which see `length` cells each."""

    n: int
    n_new: int
    length: int

    def __str__(self) -> str:
        return f"prefill {self.n_new}" if self.n_new > 1 else f"{self.n} at {self.length}"


CASES = (*(Case(n, 1, length) for length in (1024, 8192) for n in (1, 8, 16)), Case(1, 512, 512))


class Heads(NamedTuple):
    q: int
    kv: int
    size: int


def cells_of(kind: str, n: int, width: int) -> bytes:
    """Random values of a cache, in its type."""
    values = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
    number = gguf.GGMLQuantizationType[kind.upper()]
    return (
        gguf.quants.quantize(values, number).tobytes()
        if kind != "f16"
        else values.astype(np.float16).tobytes()
    )


class Side:
    """A graph of one layer's attention, by our operation or ggml's."""

    def __init__(self, case: Case, heads: Heads, kind: str, ours: bool) -> None:
        n_cells, rows, width = case.n * case.length, case.n * case.n_new, heads.kv * heads.size
        ctx: Any = Context(32 + 16 * case.n, graph_size=32 + 16 * case.n)
        q = ctx.input(F32, (heads.size, heads.q, rows), "q")
        caches = [ctx.input(type_id(kind), (width, n_cells), name) for name in "kv"]
        mask = None if ours else ctx.input(F16, (case.length, case.n_new), "mask")
        graph, self.paged = ctx.graph(32 + 16 * case.n), PagedAttention(1)
        scale = heads.size**-0.5
        if ours:
            out = self.paged.op(ctx, 0, q, *caches, heads.size, scale, 0.0, 0.0, 0)
            graph.add(ctx.output(out))
        else:
            for i in range(case.n):
                k, v = (self._of_sequence(ctx, cache, i, case, heads, kind) for cache in caches)
                shape = (heads.size, heads.q, case.n_new)
                part = ctx.view(q, shape, q.strides[1:3], i * case.n_new * q.strides[2])
                graph.add(ctx.output(ctx.flash_attention(ctx.permute(part, 0, 2, 1), k, v, mask, scale)))
        self.sched, self.graph, self.ctx = Sched([Backend(CPU, 1)], 64 + 16 * case.n), graph, ctx
        self.sched.allocate(graph)
        q.set(
            np.random.default_rng(1).standard_normal((rows, heads.q, heads.size)).astype(np.float32).tobytes()
        )
        for cache in caches:
            cache.set(cells_of(kind, n_cells, width))
        n_past = case.length - case.n_new
        if mask is not None:
            seen = np.arange(case.length)[None, :] <= n_past + np.arange(case.n_new)[:, None]
            mask.set(np.where(seen, 0, -np.inf).astype(np.float16).tobytes())
        order = np.random.default_rng(2).permutation(n_cells).astype(np.int32).reshape(case.n, -1)
        self.batch = [(array("i", order[i]), n_past, case.n_new, i * case.n_new) for i in range(case.n)]

    def _of_sequence(self, ctx: Any, cache: Any, i: int, case: Case, heads: Heads, kind: str) -> Any:
        strides = (row_size(type_id(kind), heads.size), cache.strides[1])
        shape = (heads.size, heads.kv, case.length)
        return ctx.permute(ctx.view(cache, shape, strides, i * case.length * cache.strides[1]), 0, 2, 1)

    def seconds(self) -> float:
        self.paged.prepare(self.batch)
        start = time.thread_time()
        self.sched.compute(self.graph)
        return time.thread_time() - start


def ratio(case: Case, heads: Heads, kind: str, repetitions: int) -> float:
    """Time of ggml / ours, of the medians."""
    sides = [Side(case, heads, kind, ours) for ours in (True, False)]
    times: list[list[float]] = [[], []]
    for _ in range(repetitions + 1):
        for i, side in enumerate(sides):
            times[i].append(side.seconds())
    ours, theirs = (statistics.median(each[1:]) for each in times)  # the first ones warm up
    return theirs / ours


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--type", nargs="+", choices=TYPES, default=TYPES)
    p.add_argument("--kernels", default="", help="an instruction set (default: the best)")
    p.add_argument(
        "--heads", type=int, nargs=3, default=(32, 4, 64), help="of queries, of keys, and their size"
    )
    p.add_argument("--repetitions", type=int, default=5)
    args = p.parse_args()
    if args.kernels:
        use_instruction_set(args.kernels)
    heads = Heads(*args.heads)
    print(f"{instruction_set()}, {CPU.description}; {heads}; one thread; time of ggml / ours")
    print(f"{'cache':<6}" + "".join(f"{case!s:>13}" for case in CASES))
    for kind in args.type:
        print(f"{kind:<6}", end="")
        for case in CASES:
            print(f"{ratio(case, heads, kind, args.repetitions):>13.2f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
