"""The paged attention kernel against a plain numpy attention over the same cells."""

from __future__ import annotations

import platform
from array import array
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from engine.errors import GgmlError
from engine.ggml.backend import Backend, devices
from engine.ggml.operations import Context
from engine.ggml.sched import Sched
from engine.ggml.tensor import F32, type_id
from engine.graph.ops.attention import PagedAttention
from engine.graph.ops.packed import instruction_sets, use_instruction_set
from support.quick import every

CPU = next(d for d in devices() if d.type == "cpu")


@dataclass
class Case:
    """Sequences are (n_past, n_new); rows follow each other in the batch."""

    sequences: list[tuple[int, int]]
    heads: int = 4
    kv_heads: int = 2
    dk: int = 64
    dv: int = 64
    kv_type: str = "f32"
    window: int = 0
    softcap: float = 0.0
    max_bias: float = 0.0
    causal: bool = True
    threads: int = 2
    n_cells: int = 700
    q_scale: float = 2.0
    chunked: bool = False
    v_in_k: bool = False  # values are the first part of the keys (latent attention)
    tables: list[Any] = field(default_factory=list)


def slopes(max_bias: float, heads: int) -> np.ndarray:
    """Press 2021, arXiv 2108.12409: a geometric series, and every other term of the next for the rest."""
    n = 1 << int(np.floor(np.log2(heads)))
    first = [2.0 ** (-max_bias / n * (i + 1)) for i in range(n)]
    rest = [2.0 ** (-max_bias / 2 / n * (2 * i + 1)) for i in range(heads - n)]
    return np.array(first + rest) if max_bias else np.zeros(heads)


def reference(case: Case, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """q [rows, heads, dk], k [cells, kv_heads, dk], v [cells, kv_heads, dv] -> [rows, heads, dv], float64."""
    out = np.zeros((len(q), case.heads, case.dv))
    group, row = case.heads // case.kv_heads, 0
    bias = slopes(case.max_bias, case.heads)
    for (n_past, n_new), table in zip(case.sequences, case.tables, strict=True):
        for position in range(n_past, n_past + n_new):
            back = case.window - 1 if case.causal else case.window // 2
            first = max(0, position - back) if case.window else 0
            if case.chunked:
                first = position - position % case.window
            last = position + 1 if case.causal else n_past + n_new
            if case.window and not case.causal:
                last = min(last, position + back + 1)
            seen = np.arange(first, last)
            cells = np.array(table)[seen]
            for h in range(case.heads):
                s = k[cells, h // group] @ q[row, h] * scale
                if case.softcap:
                    s = case.softcap * np.tanh(s / case.softcap)
                s = s - bias[h] * np.abs(position - seen)
                p = np.exp(s - s.max())
                out[row, h] = p / p.sum() @ v[cells, h // group]
            row += 1
    return out


def run(case: Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(what the kernel gives, what it should give), [rows, heads, dv]."""
    rng = np.random.default_rng(seed)
    n_rows = sum(n_new for _, n_new in case.sequences)
    shuffled = rng.permutation(case.n_cells)  # cells of a session lie anywhere
    case, at = replace(case, tables=[]), 0
    for n_past, n_new in case.sequences:
        case.tables.append(array("i", shuffled[at : at + n_past + n_new].tolist()))
        at += n_past + n_new
    q = rng.standard_normal((n_rows, case.heads, case.dk)).astype(np.float32) * np.float32(case.q_scale)
    got, k, v = compute(case, q, rng)
    return got, reference(case, q.astype(np.float64), k, v, case.dk**-0.5)


def compute(case: Case, q: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(what the kernel gives, k, v). q [rows, heads, dk]; k and v come from `rng`."""
    n_rows, scale = len(q), case.dk**-0.5
    ctx: Any = Context(32, graph_size=16)
    number = type_id(case.kv_type)
    tq = ctx.input(F32, (case.dk, case.heads, n_rows), "q")
    inputs = Context(4)
    tk = inputs.new(number, (case.dk * case.kv_heads, case.n_cells), "k")
    tv = None if case.v_in_k else inputs.new(number, (case.dv * case.kv_heads, case.n_cells), "v")
    inputs.allocate(CPU.buffer_types()[-1])
    k = store(tk, case, case.dk, rng)
    v = k[..., : case.dv] if tv is None else store(tv, case, case.dv, rng)
    if tv is None:
        tv = ctx.view(tk, (case.dv, case.n_cells), (tk.strides[1],))
    paged = PagedAttention(1)
    out = ctx.output(
        paged.op(
            ctx,
            0,
            tq,
            tk,
            tv,
            case.dv,
            scale,
            case.softcap,
            case.max_bias,
            case.window,
            None,
            case.causal,
            case.chunked,
        )
    )
    graph = ctx.graph(16)
    graph.add(out)
    sched = Sched([Backend(CPU, case.threads)], 64)
    sched.allocate(graph)
    row = 0
    batch = []
    for (n_past, n_new), table in zip(case.sequences, case.tables, strict=True):
        batch.append((table, n_past, n_new, row))
        row += n_new
    results = []
    for _ in range(2):  # the second time shows that units of work are handed out anew
        paged.prepare(batch)
        tq.set(q.tobytes())
        sched.compute(graph)
        results.append(np.frombuffer(out.get(), np.float32).reshape(n_rows, case.heads, case.dv))
    np.testing.assert_array_equal(results[0], results[1])
    return results[0], k, v


def store(tensor: Any, case: Case, d: int, rng: np.random.Generator) -> np.ndarray:
    """Fill a cache tensor and return what it holds, [cells, kv_heads, d] float64."""
    shape = (case.n_cells, case.kv_heads * d)
    if case.kv_type == "f32":
        values = rng.standard_normal(shape).astype(np.float32)
        tensor.set(values.tobytes())
    elif case.kv_type == "f16":
        values = rng.standard_normal(shape).astype(np.float16)
        tensor.set(values.tobytes())
    elif case.kv_type == "bf16":
        raw = rng.standard_normal(shape).astype(np.float32).view(np.uint32) & 0xFFFF0000
        tensor.set((raw >> 16).astype(np.uint16).tobytes())
        values = raw.view(np.float32)
    else:  # q8_0: blocks of a half scale and 32 signed bytes
        assert case.kv_type == "q8_0"
        n = shape[0] * shape[1] // 32
        scales = (rng.random((n, 1)) * 0.02 + 0.001).astype(np.float16)
        quants = rng.integers(-127, 128, (n, 32)).astype(np.int8)
        tensor.set(np.concatenate([scales.view(np.uint8).reshape(n, 2), quants.view(np.uint8)], 1).tobytes())
        values = (scales.astype(np.float32) * quants).reshape(shape)
    return values.reshape(case.n_cells, case.kv_heads, d).astype(np.float64)


CASES = {
    "decode, one head per KV head": Case([(130, 1)], heads=4, kv_heads=4),
    "decode, groups of 8": Case([(130, 1)], heads=32, kv_heads=4),
    "decode, multi-query, odd head count": Case([(65, 1)], heads=71, kv_heads=1),
    "eight sessions decoding": Case([(n, 1) for n in (0, 1, 17, 63, 64, 65, 100, 127)], heads=8, kv_heads=2),
    "prefill": Case([(0, 150)]),
    "second chunk of a prompt": Case([(100, 70)]),
    "prompt beside decoding sessions": Case([(40, 1), (0, 90), (200, 1), (30, 7)], heads=8, kv_heads=2),
    "window shorter than the context": Case([(0, 150), (300, 1)], window=32),
    "chunks": Case([(0, 150), (300, 1), (95, 2)], window=32, chunked=True),
    "chunks that are no tiles": Case([(0, 150), (69, 3)], window=70, chunked=True, heads=8, kv_heads=1),
    "window of one": Case([(0, 20)], window=1),
    "window over tiles": Case([(200, 100)], window=129, heads=2, kv_heads=1),
    "ALiBi, heads no power of two": Case([(0, 100), (70, 1)], heads=6, kv_heads=6, max_bias=8.0),
    "soft cap": Case([(0, 80), (90, 1)], softcap=5.0),
    "head size 80": Case([(0, 70), (33, 1)], dk=80, dv=80),
    "head size 96, other value size": Case([(0, 70), (33, 1)], dk=96, dv=40),
    "head sizes of no vector": Case([(0, 70), (33, 1)], dk=20, dv=12),
    "head size 256": Case([(0, 70), (33, 1)], dk=256, dv=256, kv_heads=1, heads=2),
    "f16": Case([(0, 130), (64, 1)], kv_type="f16"),
    "f16, head size 20": Case([(0, 130), (64, 1)], kv_type="f16", dk=20, dv=20),
    "bf16": Case([(0, 130), (64, 1)], kv_type="bf16"),
    "q8_0": Case([(0, 130), (64, 1)], kv_type="q8_0"),
    "q8_0, second head begins inside the row": Case(
        [(0, 30), (64, 1)], kv_type="q8_0", dk=32, dv=96, kv_heads=4
    ),
    "both ways, several sequences": Case([(0, 150), (0, 1), (0, 40), (0, 65)], causal=False),
    "both ways, beside what was there": Case([(70, 30), (5, 2)], causal=False, heads=8, kv_heads=2),
    "both ways, a window": Case([(0, 150), (0, 1), (0, 40)], causal=False, window=32),
    "both ways, ALiBi": Case([(0, 90), (0, 7)], causal=False, max_bias=8.0),
    "both ways, a window over tiles": Case([(0, 300)], causal=False, window=259, heads=8, kv_heads=2),
    "both ways, head size 32": Case([(0, 33), (0, 64)], causal=False, dk=32, dv=32, heads=12, kv_heads=12),
    "latents: values within the keys": Case(
        [(0, 90), (70, 1)], heads=16, kv_heads=1, dk=576, dv=512, v_in_k=True
    ),
    "latents, q8_0": Case([(0, 30), (64, 1)], kv_type="q8_0", kv_heads=1, dk=96, dv=64, v_in_k=True),
    "one thread": Case([(40, 1), (0, 90)], threads=1),
    "more threads than work": Case([(3, 1)], heads=1, kv_heads=1, threads=4),
}


@pytest.mark.parametrize("name", CASES)
def test_paged_attention_equals_plain_attention(name: str) -> None:
    got, expected = run(CASES[name])
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="widths of x86-64's sets")
def test_each_instruction_set_uses_its_own_vector_width() -> None:
    """Sums over vectors of another width are rounded otherwise: a set that used another's would show here."""
    widths = {"avx512vnni": 16, "avx512": 16, "avxvnni": 8, "avx2": 8, "portable": 4}
    results: dict[int, set[bytes]] = {}
    for name in instruction_sets():
        use_instruction_set(name)
        results.setdefault(widths[name], set()).add(run(Case([(90, 1)]))[0].tobytes())
    assert [len(same) for same in results.values()] == [1] * len(results)
    assert len(set.union(*results.values())) == len(results)


@pytest.mark.parametrize(
    "kind",
    every(
        5,
        [
            {"heads": 4, "kv_heads": 4},
            {"heads": 8, "kv_heads": 2},
            {"heads": 16, "kv_heads": 1},
            {"heads": 6, "kv_heads": 1, "dk": 72, "dv": 52, "v_in_k": True},
            {"heads": 6, "kv_heads": 6, "max_bias": 8.0},
            {"heads": 4, "kv_heads": 2, "softcap": 5.0, "window": 40},
            {"heads": 4, "kv_heads": 2, "dk": 20, "dv": 12, "window": 70},
            {"heads": 4, "kv_heads": 2, "window": 40, "chunked": True},
            {"heads": 4, "kv_heads": 2, "kv_type": "f16"},
            {"heads": 4, "kv_heads": 2, "kv_type": "q8_0", "dk": 96, "dv": 32},
        ],
    ),
    ids=str,
)
def test_row_is_bit_identical_for_any_chunks_of_its_sequence(kind: dict[str, Any]) -> None:
    """As a whole prompt, in chunks, token by token, beside others, by any number of threads."""
    n, others = 150, [(30, 1), (90, 1), (0, 33), (7, 5)]
    rng = np.random.default_rng(3)
    table, *more = np.split(rng.permutation(700), np.cumsum([n, *(p + m for p, m in others)]))[:-1]
    heads, dk = kind["heads"], kind.get("dk", 64)
    q = rng.standard_normal((n, heads, dk)).astype(np.float32)
    q_others = rng.standard_normal((sum(m for _, m in others), heads, dk)).astype(np.float32)

    def rows(first: int, last: int, threads: int, company: bool) -> np.ndarray:
        sequences = [(first, last - first), *(others if company else [])]
        case = Case(sequences, threads=threads, **kind)
        case.tables += [array("i", cells.tolist()) for cells in (table, *(more if company else []))]
        queries = np.concatenate([q[first:last], q_others]) if company else q[first:last]
        return compute(case, queries, np.random.default_rng(4))[0][: last - first]

    whole = rows(0, n, 2, company=False)
    for threads, neighbours in ((1, False), (4, False), (1, True), (3, True)):
        np.testing.assert_array_equal(rows(0, n, threads, neighbours), whole)
    for first, last in (
        (0, 1),
        (0, 2),
        (5, 8),
        (60, 70),
        (63, 64),
        (64, 65),
        (90, 131),
        (148, 149),
        (149, 150),
    ):
        for threads, neighbours in ((2, False), (4, False), (2, True)):
            np.testing.assert_array_equal(rows(first, last, threads, neighbours), whole[first:last])


def test_attention_with_scores_of_any_size_stays_finite() -> None:
    """Scores of some thousands overflow exp; the running maximum must keep them in range."""
    for sequences in ([(0, 90)], [(89, 1)]):  # both layouts of the kernel
        got, expected = run(Case(sequences, heads=2, kv_heads=2, q_scale=3000.0))
        assert np.isfinite(got).all()
        # One position takes all the weight; where two are close, float32 scores of thousands differ by 1e-3.
        np.testing.assert_allclose(got, expected, atol=2e-2)


def test_shapes_that_do_not_fit_together_are_refused() -> None:
    ctx: Any = Context(8)
    q = ctx.new(F32, (64, 4, 1))
    k = ctx.new(F32, (96, 10))
    with pytest.raises(GgmlError, match="do not fit together"):
        PagedAttention(1).op(ctx, 0, q, k, k, 64, 0.1, 0.0, 0.0, 0)
    k = ctx.new(F32, (64, 10))
    with pytest.raises(GgmlError, match="do not fit together"):  # fewer values than keys
        PagedAttention(1).op(ctx, 0, q, k, ctx.new(F32, (64, 9)), 64, 0.1, 0.0, 0.0, 0)
    with pytest.raises(GgmlError, match="do not fit together"):  # a transposed query
        PagedAttention(1).op(
            ctx, 0, ctx.permute(ctx.new(F32, (4, 64, 1)), 1, 0, 2), k, k, 64, 0.1, 0.0, 0.0, 0
        )
    k = ctx.new(type_id("q8_0"), (96, 10))
    with pytest.raises(GgmlError, match="do not fit together"):  # a head is no whole number of blocks
        PagedAttention(1).op(ctx, 0, ctx.new(F32, (48, 2, 1)), k, k, 48, 0.1, 0.0, 0.0, 0)
