"""A model that was closed: whatever still refers to it gets an error, not freed memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest

import engine
from engine.config import InferenceSessionConfig
from engine.errors import EngineError
from engine.scheduler.batch import BatchItem
from engine.types import FinishReason, Request
from server.models.bundled import bundled_model

PARAMS = engine.ModelParameters(n_threads=1, kv_cells=64, context_size=64, max_batch_tokens=8, parallel=2)
ROWS = [BatchItem([5, 6], array("i", [0, 1]), 0, True)]


@pytest.mark.parametrize(
    "use",
    [
        lambda m, runner: runner.forward(ROWS),
        lambda m, runner: runner.forward([BatchItem([5], array("i", [0]), 0, True)]),
        lambda m, runner: runner.reserve(1),
        lambda m, runner: runner.logits(0),
        lambda m, runner: m.describe(),
        lambda m, runner: m.set_threads(2),
        lambda m, runner: m.scheduler(),
        lambda m, runner: m.start_session(),
        lambda m, runner: m.restore_session("x"),
        lambda m, runner: m.fingerprint,
        lambda m, runner: m.cache.nbytes,
        lambda m, runner: m.cache.k[0].get(),
        lambda m, runner: m.weights.nbytes,
        lambda m, runner: m.weights.tensors["token_embd.weight", "get_rows"].get(),
        lambda m, runner: m.sched.n_splits,
    ],
)
def test_use_after_close_is_an_error(use: Callable[[engine.Model, Any], object]) -> None:
    model = engine.load(bundled_model(), PARAMS)
    runner = model.runner
    runner.forward(ROWS)
    model.close()
    with pytest.raises(EngineError, match=r"closed|no row"):
        use(model, runner)
    model.close()


def test_scheduler_of_a_closed_model_ends_its_requests() -> None:
    model = engine.load(bundled_model(), PARAMS)
    scheduler = model.scheduler()
    scheduler.submit(Request(id="x", prompt=[5, 6, 7]))
    model.close()
    (emission,) = scheduler.step()
    assert (emission.finish, emission.error) == (FinishReason.ERROR, "the model was closed")


def test_tables_are_kept_while_they_are_read() -> None:
    """A generator hands out each table once and forgets it."""
    with engine.load(bundled_model(), PARAMS) as model:
        tables = [list(range(i, 64, 4)) for i in range(4)]
        expected = []
        for cells in tables:
            model.runner.forward([BatchItem([5, 6], array("i", cells), 0, True)])
            expected.append(list(model.runner.logits(0)))
        assert model.runner.forward(BatchItem([5, 6], array("i", cells), 0, True) for cells in tables) == 4
        assert len({len(row) for row in expected}) == 1
        for i, row in enumerate(expected):
            assert list(model.runner.logits(i)) == pytest.approx(row, abs=1e-3)


@pytest.mark.parametrize("n", [-1, 513])
def test_session_with_an_invalid_thread_count_is_refused(n: int) -> None:
    with engine.load(bundled_model(), PARAMS) as model:
        session = model.start_session(InferenceSessionConfig(n_threads=n))
        with pytest.raises(engine.ConfigError, match=f"n_threads is {n}"):
            session.feed_prompt([5, 6])
        assert session.tokens == []
