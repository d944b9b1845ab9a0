"""The bundled model, whole: what batch size, company, cache and attention must not change."""

from __future__ import annotations

import re
import resource
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.model.model import lock_memory
from engine.scheduler.batch import BatchItem
from server.models.bundled import bundled_model
from support.references.greedy import Greedy, GreedyComparison, request, run

PROMPTS = [
    "Once upon a time",
    "Tom had a red ball. He loved to",
    "Lily and her mom went to the park. They saw a big tree and",
    "The little cat was very hungry, so",
    "One day, a boy named Tim found a shiny key in the garden. He wanted to know what it would open.",
    "“Bären” — said the bear 🐻,",
    "There was a",
    "The sun was hot. The dog wanted water. The bird wanted water. The fish wanted",
]


def load(**params: Any) -> engine.Model:
    return engine.load(
        bundled_model(), engine.ModelParameters(**{"n_threads": 1, "kv_cells": 4096, **params})
    )


@pytest.fixture(scope="module")
def model() -> Iterator[engine.Model]:
    with load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def alone(model: engine.Model) -> list[Greedy]:
    """Each prompt by itself, from an empty cache."""
    collected = []
    for prompt in PROMPTS:
        ids = model.tokenizer.encode(prompt)
        collected.append(run(model.scheduler(), [request("x", ids, cache=False)])["x"])
    return collected


def long_prompt(model: engine.Model, n: int = 300) -> list[int]:
    ids = [i for prompt in PROMPTS * 4 for i in model.tokenizer.encode(prompt, add_special=False)]
    return ids[:n]


def test_batch_size_changes_only_the_chunks(model: engine.Model, same_greedy: GreedyComparison) -> None:
    ids = long_prompt(model)
    steps, results = {}, {}
    for n_batch in (512, 64, 8, 1):
        scheduler = model.scheduler()
        results[n_batch] = run(scheduler, [request("x", ids, n_batch=n_batch, cache=False)])["x"]
        steps[n_batch] = scheduler.stats().steps
        same_greedy(results[n_batch], results[512])
        assert results[n_batch].timings.n_batch == n_batch
        assert results[n_batch].timings.prompt_n == 300
    # 48 tokens come of the last prompt step and 47 decode steps.
    assert steps == {n: -(-300 // n) + 47 for n in (512, 64, 8, 1)}


def test_eight_streams_give_the_texts_that_each_gives_alone(
    model: engine.Model, alone: list[Greedy], same_greedy: GreedyComparison
) -> None:
    requests = [request(str(i), model.tokenizer.encode(p), cache=False) for i, p in enumerate(PROMPTS)]
    scheduler = model.scheduler()
    result = run(scheduler, requests)
    assert scheduler.stats().steps < 60, "they must share steps"
    for i, expected in enumerate(alone):
        same_greedy(result[str(i)], expected)


def test_streams_are_not_disturbed_by_a_long_prompt(
    model: engine.Model, alone: list[Greedy], same_greedy: GreedyComparison
) -> None:
    ids = long_prompt(model, 400)
    requests = [request("a", model.tokenizer.encode(PROMPTS[0])), request("long", ids, n=5, n_batch=16)]
    result = run(model.scheduler(), requests)
    same_greedy(result["a"], alone[0])


def test_prefix_cache_saves_work_and_changes_no_answer(
    model: engine.Model, same_greedy: GreedyComparison
) -> None:
    ids = long_prompt(model)
    scheduler = model.scheduler()
    fresh = run(scheduler, [request("x", ids, cache=False)])["x"]
    assert fresh.timings.cached_n == 0
    run(scheduler, [request("first", ids)])
    again = run(scheduler, [request("again", ids)])["again"]
    assert (again.timings.cached_n, again.timings.prompt_n) == (299, 1)
    turn = ids + again.tokens + model.tokenizer.encode(" Then", add_special=False)
    other = run(scheduler, [request("turn", turn), request("half", ids[:150] + ids[10:40])])
    assert other["turn"].timings.cached_n >= 300 + 47
    assert other["half"].timings.cached_n >= 150
    same_greedy(again, fresh)
    for name, prompt in (("turn", turn), ("half", ids[:150] + ids[10:40])):
        same_greedy(other[name], run(scheduler, [request("y", prompt, cache=False)])["y"])


@pytest.mark.parametrize("kv_type", ["q8_0", "f32", "bf16"])
def test_prefix_cache_works_with_every_cache_type(kv_type: str, same_greedy: GreedyComparison) -> None:
    with load(kv_type=kv_type) as model:
        ids = long_prompt(model)
        scheduler = model.scheduler()
        fresh = run(scheduler, [request("x", ids, cache=False)])["x"]
        run(scheduler, [request("first", ids[:200])])
        again = run(scheduler, [request("again", ids)])["again"]
        assert again.timings.cached_n >= 200
        same_greedy(again, fresh)


def test_all_kinds_of_attention_agree(model: engine.Model) -> None:
    """Our kernel, ggml's flash attention, and the plain product, over scattered cells."""
    ids = long_prompt(model, 200)
    results = {}
    cells = array("i", np.random.default_rng(1).permutation(1000)[:201].tolist())
    for kind in ("auto", "on", "off"):
        with load(flash_attn=kind) as other:
            other.runner.forward([BatchItem(ids, cells, 0, True)])
            prefill = np.array(other.runner.logits(0))
            other.runner.forward([BatchItem([5], cells, 200, True)])
            results[kind] = np.stack([prefill, np.array(other.runner.logits(0))])
    scale = np.abs(results["auto"]).max()
    # The weights are Q8_0, whose products round activations to 8 bits: small differences grow a little.
    assert np.abs(results["on"] - results["auto"]).max() < 0.02 * scale
    assert np.abs(results["off"] - results["auto"]).max() < 0.02 * scale


def test_mask_shows_only_the_sequences_own_earlier_cells(model: engine.Model) -> None:
    """Two sessions that share cells 3 and 1 (a prefix); rows are written top to bottom."""
    shared = [3, 1]
    a = BatchItem([7, 8], array("i", [*shared, 0, 5]), 2, True)
    b = BatchItem([9], array("i", [*shared, 2]), 2, True)
    picture = [
        "xx.x....",
        "xx.x.x..",
        ".xxx....",
    ]
    assert draw(model.runner.mask_rows([a, b], 8)) == picture
    windowed = [
        "xx......",
        "x....x..",
        ".xx.....",
    ]
    assert draw(model.runner.mask_rows([a, b], 8, window=2)) == windowed


def draw(mask: list[list[bool]]) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (BatchItem([2048], array("i", [0]), 0, True), "token 2048"),
        (BatchItem([-1], array("i", [0]), 0, True), "token -1"),
        (BatchItem([1], array("i", [4096]), 0, True), "cell 4096"),
        (BatchItem([1], array("i", [-1]), 0, True), "cell -1"),
        (BatchItem([1], array("i", []), 0, True), "0 cells"),
        (BatchItem([], array("i", [0]), 0, True), "1 cells for 0 \\+ 0"),
        (BatchItem([1], array("q", [0, 1]), 0, True), "cells"),
        (BatchItem([1] * 513, array("i", range(513)), 0, True), "513 tokens"),
    ],
)
def test_invalid_batch_is_refused_before_ggml_sees_it(
    model: engine.Model, rows: BatchItem, text: str
) -> None:
    with pytest.raises(engine.EngineError, match=text):
        model.runner.forward([rows])
    assert model.runner.forward([BatchItem([1], array("i", [0]), 0, True)]) == 1


def test_decode_reuses_its_graph(model: engine.Model) -> None:
    table = array("i", range(100))
    model.runner.forward([BatchItem([1], table, 0, True)])
    built = model.runner.graphs_built
    for i in range(1, 100):
        model.runner.forward([BatchItem([1], table, i, True)])
    assert model.runner.graphs_built == built


def test_progress_and_description(tmp_path: Path) -> None:
    fractions: list[float] = []
    with engine.load(
        bundled_model(), engine.ModelParameters(use_mmap=False), progress=lambda f, t: fractions.append(f)
    ) as m:
        described = m.describe()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert described["placement"] == ["CPU"] * 5
    assert described["n_params"] == 2885888


def test_progress_never_goes_back_with_a_draft_model() -> None:
    fractions: list[float] = []
    path = bundled_model()
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, draft_model=str(path))
    engine.load(path, params, progress=lambda f, t: fractions.append(f)).close()
    assert fractions == sorted(fractions)
    assert fractions.count(1.0) >= 1
    assert any(0.9 < fraction < 1.0 for fraction in fractions)  # of the draft model


def test_mlock_locks_weights_and_cache_or_names_the_limit() -> None:
    def locked() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmLck:")[1].split()[0]) * 1024

    before = locked()
    with load(kv_cells=256) as model:
        buffers = [*model.weights.buffers, *model.cache.buffers]
        size = sum(buffer.size for buffer in buffers)
        if lockable(size):
            lock_memory(buffers)
            assert locked() - before >= size
        else:  # an ordinary user's limit may be less: 8 MiB on Debian, 64 KiB in containers
            with pytest.raises(engine.ConfigError, match=r"MiB.*ulimit -l"):
                lock_memory(buffers)
        with pytest.raises(engine.ConfigError, match=r"MiB.*ulimit -l"):
            lock_memory([_Unlockable(model.weights.buffers[0]), *model.cache.buffers])


def lockable(size: int) -> bool:
    """Whether the system lets this process lock so much memory: CAP_IPC_LOCK, or the limit of `ulimit -l`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = re.search(r"^CapEff:\s*(\w+)", status, re.MULTILINE)
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may_lock_all = capabilities is not None and bool(int(capabilities[1], 16) >> 14 & 1)
    return may_lock_all or soft == resource.RLIM_INFINITY or size + (1 << 16) <= soft


class _Unlockable:
    """A buffer whose system refuses to lock it."""

    def __init__(self, buffer: Any) -> None:
        self.type, self.size = buffer.type, buffer.size

    def lock(self) -> bool:
        return False
