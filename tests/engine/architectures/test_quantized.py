"""Weights in every type that ggml computes with: the logits are those of the floats that they mean.

ggml rounds activations to 8 bits for most of these types, so logits differ by some percent from float
arithmetic; a wrong layout, scale or kernel differs by about as much as there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from support.builders.golden import TinyModel, matrices, rms_error, wide_model
from support.builders.quantized import FORMATS, quantize
from support.quick import matrix

BOUND = 0.15  # seen: 0.007 to 0.09
IDS = np.random.default_rng(7).integers(3, 264, 70).tolist()  # several tiles of every kernel, and a rest
COMMON = ("Q4_0", "Q4_K", "IQ2_XS")
STEPS = 9  # of these, fed one by one


def logits(path: Path, *, n_batch: int = 512, use_mmap: bool = True) -> list[np.ndarray]:
    """After the whole prompt (matrix products), and after each of the tokens fed alone."""
    params = engine.ModelParameters(
        use_gpu=False, kv_type="f32", context_size=128, kv_cells=128, n_threads=1, use_mmap=use_mmap
    )
    config = engine.InferenceSessionConfig(n_batch=n_batch, cache_prompt=False)
    with engine.load(path, params) as model, model.start_session(config) as session:
        session.feed_prompt(IDS[:-STEPS])
        actual = [session.last_logits]
        for token in IDS[-STEPS:]:
            session.feed_prompt([token])
            actual.append(session.last_logits)
        return actual


def check(name: str, model: TinyModel, folder: Path) -> None:
    rng = np.random.default_rng(3)
    blocks = {}
    for tensor in matrices(model):
        data, model.tensors[tensor] = quantize(name, model.tensors[tensor], rng)
        blocks[tensor] = (FORMATS[name].number, data)
    expected = logits(model.write(folder / "floats.gguf"))
    path = model.write(folder / "blocks.gguf", blocks)
    assert np.std(expected[0]) > 0.3  # not flat
    for n_batch, use_mmap in ((512, True), (5, True), (512, False)):
        got = logits(path, n_batch=n_batch, use_mmap=use_mmap)
        assert max(map(rms_error, got, expected)) < BOUND, f"n_batch {n_batch}, mmap {use_mmap}"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: pytest would keep gigabytes of models otherwise."""
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("name", matrix(FORMATS, COMMON.__contains__))
def test_every_weight_type_stays_close_to_f32(name: str, folder: Path) -> None:
    check(name, wide_model(seed=1), folder)


@pytest.mark.parametrize("name", matrix(FORMATS, COMMON.__contains__))
def test_every_expert_type_stays_close_to_f32(name: str, folder: Path) -> None:
    check(name, wide_model(seed=2, n_expert=3), folder)
