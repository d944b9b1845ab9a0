"""Requests with different salts share no prefix: not running, not cached, not saved."""

from __future__ import annotations

import pytest

import engine
from engine.tasks.types import Erased, EraseSlot, GetPromptLogprobs, Restored, RestoreSlot, Saved, SaveSlot
from engine.types import Request
from support.builders.golden import golden
from support.builders.snapshots import load

LLAMA = golden("llama-gqa-tied")
PROMPT = LLAMA.prompt[:40]


@pytest.fixture
def model():
    with load(LLAMA.path, parallel=4) as model:
        yield model


def run(model: engine.Model, *requests: Request) -> list[int]:
    """How many prompt tokens of each came from the cache."""
    scheduler = model.scheduler()
    for request in requests:
        scheduler.submit(request)
    cached: dict[str, int] = {}
    while scheduler.has_work:
        for output in scheduler.step():
            if output.finish is not None:
                assert output.timings is not None
                cached[output.id] = output.timings.cached_n
    scheduler.check()
    return [cached[request.id] for request in requests]


def request(id: str, salt: str) -> Request:
    params = engine.InferenceParameters(temperature=0.0, max_tokens=2, ignore_eos=True)
    return Request(id=id, prompt=PROMPT, params=params, cache_salt=salt)


def perform(model: engine.Model, task):
    runner = model.tasks()
    runner.submit("task", task)
    while runner.has_work:
        for update in runner.step(False):
            assert update.failure is None, update
            if update.result is not None:
                return update.result
    raise AssertionError("no result")


def test_prefix_is_reused_only_with_the_same_salt(model):
    n = len(PROMPT) - 1
    assert run(model, request("a", "x")) == [0]
    assert run(model, request("b", "x"), request("c", "y"), request("d", "")) == [n, 0, 0]
    assert run(model, request("e", "y"), request("f", "")) == [n, n]


def test_sequences_that_run_together_share_within_a_salt(model):
    assert run(model, request("a", "x"), request("b", "y"), request("c", "y")) == [0, 0, len(PROMPT) - 1]


def test_task_shares_prefixes_only_within_its_salt(model, tmp_path):
    n, file = len(PROMPT), str(tmp_path / "slot")
    perform(model, GetPromptLogprobs(PROMPT, 0, (), "x"))
    assert run(model, request("a", ""), request("b", "x")) == [0, n - 1]
    saved = perform(model, SaveSlot(file, PROMPT, (), "x"))
    assert isinstance(saved, Saved)
    restored = perform(model, RestoreSlot(file, "y"))
    assert isinstance(restored, Restored)
    erased = perform(model, EraseSlot(PROMPT, (), "y"))
    assert isinstance(erased, Erased)
    assert erased.n_tokens == restored.n_tokens
    perform(model, RestoreSlot(file, "y"))
    assert run(model, request("c", "y"), request("d", "z")) == [min(restored.n_tokens, n - 1), 0]
