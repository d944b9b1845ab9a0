"""Logits of several tokens of a batch, and what happens when there is no room for them."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.scheduler.batch import BatchItem
from support.builders.golden import TinyModel, error, golden

PARAMS = engine.ModelParameters(
    use_gpu=False, n_threads=1, context_size=256, kv_cells=256, kv_type="f32", parallel=1
)
TOLERANCE = 1e-3


def compute(model: engine.Model, *rows: BatchItem) -> list[np.ndarray]:
    n = model.runner.forward(rows)
    assert n == sum(row.logits for row in rows)
    return [np.array(model.runner.logits(i)) for i in range(n)]


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
@pytest.mark.parametrize("n_logits", [0, 1, 2, 5, 39, 40])
def test_the_last_tokens_give_their_logits_in_order(n_logits: int, flash_attn: str) -> None:
    ref = golden("llama-gqa-tied")
    ids, cells, others = ref.prompt[:40], array("i", range(40)), array("i", range(200, 203))
    params = engine.ModelParameters(**{**vars(PARAMS), "flash_attn": flash_attn})
    with engine.load(ref.path, params) as model:
        singly = [compute(model, BatchItem([id], cells[: i + 1], i, 1))[0] for i, id in enumerate(ids)]
        neighbours = compute(model, BatchItem([7, 8, 9], others, 0, 2))
        actual = compute(
            model,
            BatchItem([7, 8, 9], others, 0, 2),
            BatchItem(ids, cells, 0, n_logits),
            BatchItem([7], others[:1], 0, True),
        )
    expected = [*neighbours, *singly[40 - n_logits :]]
    assert len(actual) == len(expected) + 1
    for got, right in zip(actual, expected, strict=False):
        assert error(got, right) < TOLERANCE


@pytest.mark.parametrize("n_logits", [-2, 4])
def test_logits_for_more_or_fewer_than_the_tokens_are_refused(n_logits: int) -> None:
    with (
        engine.load(golden("llama-gqa-tied").path, PARAMS) as model,
        pytest.raises(engine.EngineError, match=f"{n_logits} rows of logits are requested of 3 tokens"),
    ):
        model.runner.forward([BatchItem([5, 6, 7], array("i", range(3)), 0, n_logits)])


# Only a process of its own can be short of memory. The compute buffers are freed before they grow, so that
# what fails leaves none: the next batch needs new ones.
SHORT_OF_MEMORY = """
import resource, sys
from array import array
import engine
from engine.scheduler.batch import BatchItem

model = engine.load(sys.argv[1], engine.ModelParameters(
    use_gpu=False, n_threads=1, context_size=2048, kv_cells=2048, max_batch_tokens=2048, parallel=1))
cells = array("i", range(2048))

def forward(n, n_logits):
    try:
        print(model.runner.forward([BatchItem([5] * n, cells[:n], 0, n_logits)]), end=" ")
    except engine.OutOfMemoryError as error:
        print("no room", end=" ")

forward(2048, 1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
forward(2048, 2048)
forward(2048, 2048)
forward(2048, 1)
forward(2048, 2048)
forward(3, 3)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
forward(2048, 2048)
model.close()
"""


@pytest.mark.e2e
def test_too_many_rows_of_logits_are_an_error_without_a_crash(tmp_path: Path) -> None:
    model, n_vocab = TinyModel.read(golden("llama-mqa").path), 30_000  # 234 MiB of logits
    for name, filler in {"tokens": "<{}>", "scores": 0.0, "token_type": 1}.items():
        values, kind, element = model.keys[f"tokenizer.ggml.{name}"]
        more = [filler.format(i) if isinstance(filler, str) else filler for i in range(len(values), n_vocab)]
        model.keys[f"tokenizer.ggml.{name}"] = ([*values, *more], kind, element)
    model.set("vocab_size", n_vocab)
    model.tensors["token_embd.weight"] = np.zeros((n_vocab, 32), np.float32)
    path = model.write(tmp_path / "wide.gguf")
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1 no room no room 1 no room 3 2048 "), done.stderr
