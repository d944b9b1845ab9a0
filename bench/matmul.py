"""Our products with packed weights beside ggml's own, for each type of weights.

`python -m bench.matmul [--type q4_K …] [--kernels avx2]`: one thread, one process. Both sides run in turn,
A B A B, and are timed by the thread's processor time, so that other work on the machine disturbs both alike.
ggml's side is its repacked buffer type where it has one for the type. Prints the ratio of the medians (above
1: ours is faster) for a prefill and for few rows; of types that are never packed (F16, BF16, F32), whose
products are ggml's, the speed in multiply-adds. The matrices of few rows together exceed the caches, as
those of a model do. `--experts 32 4`: products of experts, of which each row takes 4 of 32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, I32, Storage, supports, type_id
from engine.graph.ops.packed import (
    PackedMatrix,
    can_pack,
    instruction_set,
    is_faster_packed,
    use_instruction_set,
)

FLOATS = ("f16", "bf16", "f32")  # never packed
TYPES = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"),
    *("q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_xs", "mxfp4"),
    *FLOATS,
)
ROWS = (512, 1, 4, 8, 16)
CPU = next(d for d in devices() if d.type == "cpu")


def blocks(kind: str, n_in: int, n_out: int) -> bytes:
    """A matrix of random quants with scales of 2^-9, or of random numbers, in the layout of files."""
    if kind in FLOATS:
        values = np.random.default_rng(0).standard_normal((n_out, n_in), np.float32)
        high = (values.view(np.uint32) >> 16).astype(np.uint16)
        return {"f16": values.astype(np.float16), "bf16": high, "f32": values}[kind].tobytes()
    number = gguf.GGMLQuantizationType[kind.upper()]
    n_block, size = gguf.GGML_QUANT_SIZES[number]
    data = np.random.default_rng(0).integers(0, 64, (n_out, n_in // n_block, size), dtype=np.uint8)
    if kind == "mxfp4":  # an exponent
        data[:, :, 0] = 118
        return data.tobytes()
    positions = {"q2_K": (80, 82), "q3_K": (108,), "q4_K": (0, 2), "q5_K": (0, 2), "q6_K": (208,)}
    for at in positions.get(kind, (0, 2) if kind in ("q4_1", "q5_1") else (0,)):
        data[:, :, at : at + 2] = np.frombuffer(np.float16(2**-9).tobytes(), np.uint8)
    return data.tobytes()


class Side:
    """Products of `n` matrices with the same activations, in one graph; experts: all, and of each row."""

    def __init__(self, kind: str, shape: tuple[int, int], n: int, packed: bool, experts: list[int]) -> None:
        self.home = Storage(n)
        self.n_in, self.packed, self.experts = shape[0], packed, experts
        self.shape = (*shape, *experts[:1])
        data = blocks(kind, shape[0], shape[1] * (experts[0] if experts else 1))
        new: Any = partial(PackedMatrix, self.home) if packed else self.home.new
        self.matrices: list[Any] = [new(type_id(kind), self.shape, f"m{i}") for i in range(n)]
        types = CPU.buffer_types()
        buffer_type = types[-1] if packed else next(t for t in types if self._runs(t, kind))
        self.layout = "packed" if packed else buffer_type.name
        self.buffer = self.home.allocate(buffer_type)
        self.buffer.mark_weights()  # as the loader does: large pages
        for matrix in self.matrices:
            if packed:
                matrix.load(data)
            else:
                matrix.set(data)
        self.graphs: dict[tuple[int, int], Any] = {}

    def _runs(self, buffer_type: Any, kind: str) -> bool:
        ctx: Any = Context(8)
        weight = ctx.new(type_id(kind), self.shape)
        if self.experts:
            ids = ctx.new(I32, (self.experts[1], 512))
            out = ctx.mul_mat_id(weight, ctx.new(F32, (self.n_in, 1, 512)), ids)
        else:
            out = ctx.mul_mat(weight, ctx.new(F32, (self.n_in, 512)))
        return bool(supports(CPU, buffer_type, out, weight))

    def prepare(self, n_rows: int, n_matrices: int) -> None:
        ctx: Any = Context(8 + 4 * n_matrices, graph_size=8 + 4 * n_matrices)
        rng = np.random.default_rng(1)
        x = ctx.input(F32, (self.n_in, *(() if not self.experts else (1,)), n_rows), "x")
        ids = ctx.input(I32, (self.experts[1], n_rows), "ids") if self.experts else None
        graph = ctx.graph(8 + 4 * n_matrices)
        for matrix in self.matrices[:n_matrices]:
            graph.add(ctx.output(matrix.times(ctx, x) if ids is None else matrix.times_experts(ctx, x, ids)))
        sched = Sched([Backend(CPU, 1)], 64 + 8 * n_matrices)
        sched.allocate(graph)
        x.set(rng.standard_normal((n_rows, self.n_in)).astype(np.float32).tobytes())
        if ids is not None:
            n, used = self.experts
            ids.set(np.array([rng.choice(n, used, False) for _ in range(n_rows)], np.int32).tobytes())
        self.now = ctx, graph, sched

    def seconds(self) -> float:
        _, graph, sched = self.now
        start = time.thread_time()
        sched.compute(graph)
        return time.thread_time() - start


def compare(
    kind: str, shape: tuple[int, int], n: int, repetitions: int, experts: list[int]
) -> dict[str, Any]:
    """By rows: the time of ggml / ours, and GMAC/s of ours; of a type that is not packed, of ggml's."""
    packs = kind not in FLOATS
    sides = [Side(kind, shape, n, packed, experts) for packed in ((True, False) if packs else (False,))]
    row: dict[str, Any] = {
        "type": kind,
        "ggml": sides[-1].layout,
        "packed": packs and is_faster_packed(type_id(kind)),
    }
    for n_rows in ROWS:
        n_matrices = 1 if n_rows >= 512 else n
        for side in sides:
            side.prepare(n_rows, n_matrices)
            side.seconds()
        times: list[list[float]] = [[] for _ in sides]
        for _ in range(repetitions):
            for measured, side in zip(times, sides, strict=True):
                measured.append(side.seconds())
        medians = [statistics.median(measured) for measured in times]
        if packs:
            row[str(n_rows)] = medians[1] / medians[0]
        used = experts[1] if experts else 1
        row[f"{n_rows} GMAC/s"] = n_rows * used * shape[0] * shape[1] * n_matrices / medians[0] / 1e9
    return row


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--type", nargs="+", choices=TYPES, default=TYPES)
    p.add_argument("--kernels", default="", help="an instruction set (default: the best)")
    p.add_argument("--shape", type=int, nargs=2, default=(2048, 2048), help="inputs and outputs of a matrix")
    p.add_argument("--matrices", type=int, default=16, help="how many of them few rows pass through")
    p.add_argument("--experts", type=int, nargs=2, default=[], help="how many, and used per row")
    p.add_argument("--repetitions", type=int, default=9)
    p.add_argument("--json", type=Path, help="also write the figures there")
    args = p.parse_args()
    if args.kernels:
        use_instruction_set(args.kernels)
    n_in, n_out = args.shape
    of = f"; {args.experts[1]} of {args.experts[0]} experts" if args.experts else ""
    print(f"{instruction_set()}, {CPU.description}; {n_in} x {n_out}{of}; one thread; time of ggml / ours")
    headings = "".join(f"{f'{n} rows':>10}" for n in ROWS)
    print(f"{'type':<8}{'ggml':<14}{headings}{'GMAC/s':>10}  loader packs")
    rows = []
    for kind in args.type:
        if kind not in FLOATS and not can_pack(type_id(kind), (n_in, n_out)):
            continue
        row = compare(kind, (n_in, n_out), args.matrices, args.repetitions, args.experts)
        rows.append(row)
        ratios = "".join(f"{row[str(n)]:>10.2f}" if str(n) in row else f"{'-':>10}" for n in ROWS)
        packs = "yes" if row["packed"] else "no"
        if kind in FLOATS:
            speeds = ", ".join(f"{row[str(n) + ' GMAC/s']:.0f}" for n in ROWS)
            packs += f"; GMAC/s by rows: {speeds}"
        print(f"{kind:<8}{row['ggml']:<14}{ratios}{row['512 GMAC/s']:>10.1f}  {packs}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"kernels": instruction_set(), "rows": rows}, indent=1))
        print(args.json, file=sys.stderr)


if __name__ == "__main__":
    main()
