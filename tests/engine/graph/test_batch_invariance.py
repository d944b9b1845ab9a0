"""A token's logits are the same to the bit whatever else is computed, on which reproducible texts rest."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.engine import Model
from engine.graph.ops.packed import instruction_set, instruction_sets, use_instruction_set
from engine.quantize.quantizer import quantize_file
from engine.scheduler.batch import BatchItem
from support.fakes.engine import STORIES
from support.quick import matrix

N, N_CELLS = 40, 300


# With each kernel set of this processor; plain C++ in every run, since ggml computes otherwise there.
CASES = [(kind, kernels) for kernels in instruction_sets() for kind in ("Q8_0", "Q4_0", "Q4_K_M", "Q5_0")]


def in_quick_runs(case: tuple[str, str]) -> bool:
    kind, kernels = case
    return kernels == instruction_set() or (kernels == "portable" and kind in ("Q8_0", "Q4_K_M"))


@pytest.fixture(
    scope="module", params=matrix([(case,) for case in CASES], always=lambda each: in_quick_runs(each[0]))
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The bundled model with weights of a type that is packed."""
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    kind, kernels = request.param
    quantize_file(STORIES, path, kind, requantize=True)
    params = engine.ModelParameters(use_gpu=False, n_threads=2, context_size=64, kv_cells=N_CELLS)
    before = instruction_set()
    use_instruction_set(kernels)
    try:
        with engine.load(Path(path), params) as model:
            assert "CPU_PACKED" in model.weights.placement.values()
            yield model
    finally:
        use_instruction_set(before)


def logits(model: Model, items: list[BatchItem], n: int) -> np.ndarray:
    """Of the last `n` rows of one batch."""
    n_rows = model.runner.forward(items)
    return np.array([np.array(model.runner.logits(i)) for i in range(n_rows - n, n_rows)])


def test_logits_are_bit_identical_in_any_batch(model: Model) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, model.hp.n_vocab, N).tolist()
    shuffled = rng.permutation(N_CELLS).tolist()
    cells = array("i", shuffled[:N])
    neighbours = [
        BatchItem([token], array("i", shuffled[N + 10 * i : N + 10 * i + 10]), 9, 1)
        for i, token in enumerate(rng.integers(3, model.hp.n_vocab, 7).tolist())
    ]
    whole = logits(model, [BatchItem(tokens, cells, 0, N)], N)
    for n, others in ((1, []), (1, neighbours), (3, neighbours[:2]), (7, neighbours[:1]), (17, [])):
        for begin in range(0, N, n):
            chunk = tokens[begin : begin + n]
            item = BatchItem(chunk, cells[: begin + len(chunk)], begin, len(chunk))
            actual = logits(model, [*others, item], len(chunk))
            np.testing.assert_array_equal(actual, whole[begin : begin + n], err_msg=f"{n} with {len(others)}")
