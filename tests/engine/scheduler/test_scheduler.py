"""The life of a request: accepted or refused, run, ended, and what is told about it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from engine.cache.cell_pool import CellPool
from engine.config import SchedulerConfig
from engine.errors import ConfigError, ContextOverflowError
from engine.scheduler.scheduler import Scheduler
from engine.types import FinishReason, InferenceParameters
from support.fakes.runner import (
    EOG,
    GREEDY,
    N_VOCAB,
    FakeRunner,
    FakeSampler,
    Model,
    Outcome,
    drain,
    make_scheduler,
    request,
    states,
)

MODEL = Model()
PROMPT = [5, 6, 7, 8, 9, 10]


def greedy(**kwargs: object) -> InferenceParameters:
    return InferenceParameters(temperature=0.0, **kwargs)  # type: ignore[arg-type]


def test_single_request_gives_the_models_text() -> None:
    scheduler, _ = make_scheduler()
    scheduler.submit(request("a", PROMPT))
    outcome = drain(scheduler)
    assert (outcome.tokens["a"], outcome.finish("a")) == MODEL.continuation(PROMPT, GREEDY, 64)
    assert outcome.last["a"].error is None


def test_the_token_that_stops_is_emitted() -> None:
    prompt = next(
        p
        for p in ([n] * 5 for n in range(1, N_VOCAB))
        if EOG in MODEL.continuation(p, greedy(max_tokens=40), 64)[0]
    )
    scheduler, _ = make_scheduler()
    scheduler.submit(request("a", prompt, params=greedy(max_tokens=40)))
    outcome = drain(scheduler)
    assert outcome.tokens["a"].index(EOG) == len(outcome.tokens["a"]) - 1
    assert outcome.finish("a") is FinishReason.STOP
    assert outcome.tokens["a"] == MODEL.continuation(prompt, greedy(max_tokens=40), 64)[0]


@pytest.mark.parametrize(
    "params",
    [
        greedy(max_tokens=40, ignore_eos=True),
        greedy(max_tokens=40, min_tokens=20),
        greedy(max_tokens=1),
        greedy(),
        greedy(stop_token_ids=tuple(range(0, N_VOCAB, 5))),
        greedy(stop_token_ids=tuple(range(0, N_VOCAB, 5)), min_tokens=15),
        greedy(stop_token_ids=tuple(range(0, N_VOCAB, 5)), ignore_eos=True),
        InferenceParameters(seed=3, max_tokens=20),
    ],
    ids=repr,
)
def test_request_ends_where_the_model_or_its_limits_say(params: InferenceParameters) -> None:
    scheduler, _ = make_scheduler()
    for n in range(1, 9):
        scheduler.submit(request(f"r{n}", [n] * n, params=params))
    outcome = drain(scheduler)
    for n in range(1, 9):
        assert (outcome.tokens[f"r{n}"], outcome.finish(f"r{n}")) == MODEL.continuation([n] * n, params, 64)


def test_request_ends_when_the_context_is_full() -> None:
    scheduler, _ = make_scheduler(n_ctx=16)
    scheduler.submit(request("a", PROMPT, params=greedy(ignore_eos=True)))
    scheduler.submit(request("b", [3] * 15, params=greedy(ignore_eos=True, max_tokens=9)))
    outcome = drain(scheduler)
    assert len(outcome.tokens["a"]) == 16 - len(PROMPT)
    assert len(outcome.tokens["b"]) == 1
    assert outcome.finish("a") is outcome.finish("b") is FinishReason.LENGTH


def test_max_tokens_0_only_fills_the_prefix_cache() -> None:
    scheduler, runner = make_scheduler()
    scheduler.submit(request("a", PROMPT, params=greedy(max_tokens=0)))
    outcome = drain(scheduler)
    assert (outcome.tokens["a"], outcome.finish("a")) == ([], FinishReason.LENGTH)
    assert scheduler.stats().cells_cached == len(PROMPT)
    assert [len(row.tokens) for batch in runner.batches for row in batch] == [len(PROMPT)]


def test_requests_that_can_never_run_are_refused() -> None:
    scheduler, _ = make_scheduler(n_ctx=16)
    with pytest.raises(
        ContextOverflowError, match="the prompt has 16 tokens, which exceeds the available context size of 16"
    ):
        scheduler.submit(request("a", [1] * 16))
    with pytest.raises(ConfigError, match="the prompt is empty"):
        scheduler.submit(request("a", []))
    with pytest.raises(ConfigError, match=f"token id {N_VOCAB} is outside"):
        scheduler.submit(request("a", [1, N_VOCAB]))
    with pytest.raises(ConfigError, match="token id -1 is outside"):
        scheduler.submit(request("a", [1], generated=[2, -1]))
    with pytest.raises(ConfigError, match="n_batch is 0"):
        scheduler.submit(request("a", [1], n_batch=0))
    assert not scheduler.has_work
    scheduler.submit(request("a", [1] * 15))
    with pytest.raises(ConfigError, match="'a' is running already"):
        scheduler.submit(request("a", [1]))
    drain(scheduler)
    scheduler.submit(request("a", [1]))  # the id is free again


def test_invalid_limits_are_refused() -> None:
    runner = FakeRunner(64, 8)
    for parallel, n_ctx, message in (
        (0, 64, "must lie between 1 and"),
        (9, 64, r"parallel \(9\) .* max_batch_tokens \(8\)"),
        (8, 65, "a session of 65 tokens must fit the KV cache of 64 cells"),
        (8, 1, "a session of 1 tokens"),
    ):
        config = SchedulerConfig(parallel=parallel, n_ctx=n_ctx, max_batch_tokens=8)
        with pytest.raises(ConfigError, match=message):
            Scheduler(runner, CellPool(64), config, FakeSampler)


def test_timings_contain_the_effective_values() -> None:
    scheduler, _ = make_scheduler(max_batch_tokens=32)
    scheduler.submit(request("a", PROMPT, n_batch=4))
    scheduler.submit(request("b", PROMPT, n_batch=512))
    first: dict[str, int] = {}
    outcome = Outcome()
    while scheduler.has_work:
        emissions = scheduler.step()
        outcome.add(emissions)
        for emission in emissions:
            if emission.tokens and emission.id not in first:
                assert emission.timings is not None
                first[emission.id] = emission.timings.predicted_n
            elif emission.processed is not None:
                so_far = emission.timings
                assert so_far is not None
                assert so_far.predicted_n == 0
                assert so_far.prompt_n + so_far.cached_n == emission.processed
            elif emission.finish is None:
                assert emission.timings is None
    assert first == {"a": 1, "b": 1}
    a, b = outcome.last["a"].timings, outcome.last["b"].timings
    assert a is not None
    assert b is not None
    assert (a.n_batch, b.n_batch) == (4, 32)
    assert (a.prompt_n, a.cached_n, a.predicted_n) == (6, 0, 8)
    assert (b.prompt_n, b.cached_n, b.predicted_n) == (1, 5, 8)
    assert min(a.queue_ms, a.prompt_ms, a.predicted_ms, b.queue_ms, b.prompt_ms, b.predicted_ms) >= 0


def test_progress_is_reported_chunk_by_chunk() -> None:
    scheduler, _ = make_scheduler()
    scheduler.submit(request("a", [1] * 20, n_batch=8))
    outcome = drain(scheduler)
    assert outcome.progress["a"] == [8, 16]
    scheduler.submit(request("b", [1] * 16 + [2] * 20, n_batch=8))
    assert drain(scheduler).progress["b"] == [24, 32]


def test_cancel_frees_everything_at_once() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    scheduler.submit(request("runs", PROMPT))
    scheduler.submit(request("waits", PROMPT))
    outcome = Outcome()
    outcome.add(scheduler.step())
    assert scheduler.cancel("runs")
    assert scheduler.cancel("waits")
    assert not scheduler.cancel("runs")
    assert not scheduler.cancel("unknown")
    assert scheduler.stats().cells_used == 0
    assert scheduler.has_work  # their end is still to be told
    outcome.add(scheduler.step())
    assert outcome.finish("runs") is outcome.finish("waits") is FinishReason.CANCELLED
    assert not scheduler.has_work
    scheduler.check()


def test_deadline_ends_a_request_in_any_state() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    late, early = time.monotonic() * 1e3 + 1e6, time.monotonic() * 1e3 - 1
    scheduler.submit(request("runs", PROMPT, deadline_ms=late))
    assert scheduler.next_deadline_ms == late
    scheduler.step()
    scheduler.submit(request("waits", PROMPT, deadline_ms=early))
    scheduler.submit(request("paused", PROMPT, deadline_ms=early + 0.5))
    scheduler.pause("paused")
    assert scheduler.next_deadline_ms == early
    outcome = drain(scheduler)
    assert outcome.finish("waits") is outcome.finish("paused") is FinishReason.TIMEOUT
    assert outcome.finish("runs") is FinishReason.LENGTH
    assert scheduler.next_deadline_ms is None


def test_deadline_counts_as_work_even_if_all_are_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.0
    monkeypatch.setattr("engine.scheduler.scheduler.monotonic", lambda: now)
    scheduler, _ = make_scheduler()
    scheduler.submit(request("a", PROMPT, deadline_ms=now * 1e3 + 5))
    scheduler.step()
    scheduler.pause("a")
    scheduler.step()
    assert not scheduler.has_work
    now += 0.01
    assert scheduler.has_work
    assert drain(scheduler).finish("a") is FinishReason.TIMEOUT
    assert scheduler.stats().cells_used == 0


def test_deadlines_of_finished_requests_do_not_pile_up() -> None:
    scheduler, _ = make_scheduler()
    for n in range(500):
        scheduler.submit(request(f"r{n}", [1], params=greedy(max_tokens=1), deadline_ms=1e18))
        drain(scheduler)
    assert len(scheduler.queues._deadlines) < 100


def test_a_paused_session_keeps_its_cells_and_its_text() -> None:
    scheduler, runner = make_scheduler()
    for id in ("a", "b"):
        scheduler.submit(
            request(id, PROMPT, params=greedy(max_tokens=20, ignore_eos=True), cache_prompt=False)
        )
    outcome = Outcome()
    for _ in range(5):
        outcome.add(scheduler.step())
    assert scheduler.pause("a")
    used = scheduler.stats().cells_used
    for _ in range(5):
        outcome.add(scheduler.step())
        assert [len(batch) for batch in runner.batches[-1:]] == [1]
    assert (len(outcome.tokens["a"]), len(outcome.tokens["b"])) == (5, 10)
    assert scheduler.stats().cells_used == used + 5
    assert scheduler.resume("a")
    drain(scheduler, outcome)
    expected, _ = MODEL.continuation(PROMPT, greedy(max_tokens=20, ignore_eos=True), 64)
    assert outcome.tokens == {"a": expected, "b": expected}
    assert not scheduler.pause("a")
    assert not scheduler.resume("a")


def test_scheduler_with_only_paused_requests_has_no_work() -> None:
    scheduler, runner = make_scheduler()
    scheduler.submit(request("a", PROMPT))
    scheduler.pause("a")
    assert not scheduler.has_work
    assert scheduler.step() == []
    assert not runner.batches
    scheduler.resume("a")
    scheduler.resume("a")
    assert scheduler.has_work
    assert drain(scheduler).tokens["a"] == MODEL.continuation(PROMPT, GREEDY, 64)[0]


@pytest.mark.parametrize("n", [1, 3, 11])
@pytest.mark.parametrize(
    "params",
    [
        greedy(max_tokens=12, min_tokens=12),
        greedy(max_tokens=12, min_tokens=12, repeat_penalty=3.0),
        InferenceParameters(seed=9, max_tokens=12),
    ],
)
def test_a_resumed_stream_continues_where_it_was(n: int, params: InferenceParameters) -> None:
    expected, reason = MODEL.continuation(PROMPT, params, 64)
    assert len(expected) == 12
    scheduler, _ = make_scheduler()
    scheduler.submit(request("a", PROMPT, params=params, generated=expected[:n], sampler_state=10.0))
    outcome = Outcome()
    while scheduler.has_work:
        emissions = scheduler.step()
        outcome.add(emissions)
        for emission in emissions:
            for token in emission.tokens:
                assert token.sampler_state == 10.0 + len(outcome.tokens["a"])
    assert (expected[:n] + outcome.tokens["a"], outcome.finish("a")) == (expected, reason)
    timings = outcome.last["a"].timings
    assert timings is not None
    assert (timings.prompt_n, timings.predicted_n) == (len(PROMPT), 12)


def test_a_stream_resumed_after_its_last_token_only_ends() -> None:
    scheduler, runner = make_scheduler(n_ctx=16)
    scheduler.submit(request("full", PROMPT, params=greedy(), generated=[3] * 10))
    scheduler.submit(request("long", PROMPT, generated=[3] * 8))
    scheduler.submit(request("stopped", PROMPT, generated=[3, EOG]))
    outcome = drain(scheduler)
    assert not runner.batches
    assert {id: e.finish for id, e in outcome.last.items()} == {
        "full": FinishReason.LENGTH,
        "long": FinishReason.LENGTH,
        "stopped": FinishReason.STOP,
    }


def test_requests_and_stats_list_what_is_running() -> None:
    scheduler, runner = make_scheduler(parallel=2, max_batch_tokens=8)
    for id, prompt in (("a", [1] * 4), ("b", [2] * 20), ("c", [3] * 4), ("d", [4] * 4)):
        scheduler.submit(request(id, prompt))
    scheduler.pause("c")
    scheduler.step()
    assert states(scheduler) == {"a": "decode", "b": "prefill", "c": "paused", "d": "waiting"}
    assert [s.n_generated for s in scheduler.queues] == [1, 0, 0, 0]
    stats = scheduler.stats()
    assert (stats.running, stats.waiting, stats.cells_total, stats.cells_used) == (3, 1, 256, 8)
    assert stats.steps == len(runner.batches) == 1
    scheduler.resume("c")
    drain(scheduler)
    end = scheduler.stats()
    assert (end.running, end.waiting, end.cells_used, states(scheduler)) == (0, 0, 0, {})
    assert end.prompt_tokens == 4 + 20 + 4 + 4
    assert end.predicted_tokens == sum(
        len(MODEL.continuation([n] * k, GREEDY, 64)[0]) for n, k in ((1, 4), (2, 20), (3, 4), (4, 4))
    )
    assert end.compute_ms == len(runner.batches) * 1.0
    assert end.step_ms > 0
    assert stats.steps == 1  # a snapshot does not change


def test_close_drops_all_requests() -> None:
    scheduler, _ = make_scheduler(parallel=2)
    for n in range(4):
        scheduler.submit(request(f"r{n}", PROMPT))
    scheduler.step()
    scheduler.pause("r1")
    scheduler.close()
    assert not scheduler.has_work
    assert scheduler.stats().cells_used == 0
    scheduler.check()


def test_scheduler_imports_no_compiled_module() -> None:
    code = (
        "import sys, engine.scheduler.scheduler, engine.scheduler.sequence, engine.scheduler.admission\n"
        "import engine.cache.prefix_cache, engine.cache.cell_pool\n"
        "modules = [m for name, m in sys.modules.items() if name.startswith('engine')]\n"
        "files = [str(getattr(m, '__file__', '')) for m in modules]\n"
        "assert all(f.endswith('.py') for f in files), files"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
