"""When cells run out: waiting, eviction, preemption, and that no client sees any of it."""

from __future__ import annotations

from array import array

import pytest

from engine.errors import DeviceError
from engine.scheduler.scheduler import Scheduler
from engine.types import FinishReason, InferenceParameters
from support.fakes.runner import GREEDY, FakeSampler, Model, Outcome, drain, make_scheduler, request, states

MODEL = Model()
LONG = InferenceParameters(temperature=0.0, max_tokens=30, ignore_eos=True)


def prompt(n: int, length: int = 10) -> list[int]:
    return [1 + (n * k + n) % 37 for k in range(length)]


def submit_all(scheduler: Scheduler, n: int, length: int = 10, **kwargs: object) -> None:
    for i in range(n):
        scheduler.submit(request(f"r{i}", prompt(i + 1, length), params=LONG, **kwargs))


def assert_all_whole(outcome: Outcome, n: int, n_ctx: int, length: int = 10) -> None:
    for i in range(n):
        assert outcome.finish(f"r{i}") is FinishReason.LENGTH
        assert outcome.tokens[f"r{i}"] == MODEL.continuation(prompt(i + 1, length), LONG, n_ctx)[0]


def test_request_without_cells_waits_and_is_not_truncated() -> None:
    scheduler, _ = make_scheduler(n_cells=40, n_ctx=40)
    submit_all(scheduler, 6, length=16)
    outcome = Outcome()
    for _ in range(20):
        outcome.add(scheduler.step())
        assert list(states(scheduler).values()) == ["decode"] + ["waiting"] * 5
    drain(scheduler, outcome)
    assert_all_whole(outcome, 6, 40, length=16)
    assert scheduler.stats().preemptions == 0


@pytest.mark.parametrize("cache_prompt", [True, False])
@pytest.mark.parametrize("n_cells", [48, 57, 64, 83, 100])
def test_preemption_does_not_change_the_text(n_cells: int, cache_prompt: bool) -> None:
    scheduler, _ = make_scheduler(n_cells=n_cells, n_ctx=48)
    submit_all(scheduler, 8, cache_prompt=cache_prompt)
    outcome = drain(scheduler)
    assert_all_whole(outcome, 8, 48)
    stats = scheduler.stats()
    assert (stats.running, stats.waiting, stats.cells_used) == (0, 0, 0)
    assert stats.preemptions > 0 or n_cells < 50
    if not cache_prompt:
        assert stats.cells_cached == 0


def test_newest_sequence_is_preempted_and_readmitted_first() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=48, parallel=3)
    submit_all(scheduler, 4)
    outcome = Outcome()
    while not scheduler.stats().preemptions:
        outcome.add(scheduler.step())
        scheduler.check()
    assert list(states(scheduler).values()) == ["decode", "decode", "waiting", "waiting"]
    assert len(outcome.tokens["r2"]) > 0
    ends: list[str] = []
    while scheduler.has_work:
        emissions = scheduler.step()
        outcome.add(emissions)
        ends += [e.id for e in emissions if e.finish is not None]
        scheduler.check()
    assert ends == ["r0", "r1", "r2", "r3"]
    assert_all_whole(outcome, 4, 48)


def test_preempted_tokens_that_stay_cached_are_not_recomputed() -> None:
    scheduler, runner = make_scheduler(n_cells=75, n_ctx=48, parallel=2)
    submit_all(scheduler, 2)
    outcome = drain(scheduler)
    assert scheduler.stats().preemptions == 1
    fed = sum(len(row.tokens) for batch in runner.batches for row in batch)
    assert fed < 2 * 39 + 10
    assert_all_whole(outcome, 2, 48)
    timings = outcome.last["r1"].timings
    assert timings is not None
    assert (timings.prompt_n, timings.cached_n, timings.predicted_n) == (10, 0, 30)


def test_the_oldest_is_never_preempted() -> None:
    scheduler, runner = make_scheduler(n_cells=50, n_ctx=48)
    submit_all(scheduler, 5)
    for n in range(1, 30):
        scheduler.step()
        row = runner.batches[-1][0]
        assert (len(row.cells), row.logits) == (10 + n - 1, True)


def test_cached_prefixes_are_evicted_before_a_preemption() -> None:
    scheduler, _ = make_scheduler(n_cells=120, n_ctx=48, parallel=2)
    submit_all(scheduler, 8)
    outcome = drain(scheduler)
    stats = scheduler.stats()
    assert (stats.preemptions, stats.cells_used) == (0, 0)
    assert stats.evicted_cells > 0
    assert_all_whole(outcome, 8, 48)


def test_least_recently_used_prefixes_are_evicted_first() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=48)
    one = InferenceParameters(temperature=0.0, max_tokens=1)
    for id, n, length in (
        ("old", 1, 16),
        ("used", 2, 16),
        ("new", 3, 16),
        ("used again", 2, 16),
        ("big", 4, 30),
    ):
        scheduler.submit(request(id, prompt(n, length), params=one))
        drain(scheduler)
    assert [scheduler.prefix.match(array("i", prompt(n, 16))).n for n in (1, 2, 3)] == [2, 16, 16]
    assert scheduler.stats().evicted_cells == 14


def test_a_prompt_in_the_cache_needs_few_cells() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=48, parallel=2)
    params = InferenceParameters(temperature=0.0, max_tokens=8, ignore_eos=True)
    scheduler.submit(request("first", prompt(1, 32), params=params))
    drain(scheduler)
    for id in ("a", "b"):  # 2 x 40 cells would not fit
        scheduler.submit(request(id, prompt(1, 32), params=params))
    outcome = Outcome()
    outcome.add(scheduler.step())
    outcome.add(scheduler.step())
    assert list(states(scheduler).values()) == ["decode", "decode"]
    drain(scheduler, outcome)
    expected = MODEL.continuation(prompt(1, 32), params, 48)[0]
    assert outcome.tokens["a"] == outcome.tokens["b"] == expected


def test_a_prefix_that_is_reused_can_no_longer_be_evicted_to_make_room() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=48)
    scheduler.submit(
        request("first", prompt(1, 30), params=InferenceParameters(temperature=0.0, max_tokens=1))
    )
    drain(scheduler)
    scheduler.submit(request("a", prompt(2, 20), params=LONG))
    scheduler.step()
    scheduler.submit(
        request("b", prompt(1, 30) + prompt(9, 6), params=LONG)
    )  # a and b have 28 + 44 tokens soon
    outcome = drain(scheduler)
    assert scheduler.stats().preemptions == 0
    assert outcome.tokens["b"] == MODEL.continuation(prompt(1, 30) + prompt(9, 6), LONG, 48)[0]


def test_the_newest_paused_session_loses_its_cells_first_but_after_the_cache() -> None:
    scheduler, _ = make_scheduler(n_cells=56, n_ctx=48)
    scheduler.submit(
        request("cached", prompt(9, 12), params=InferenceParameters(temperature=0.0, max_tokens=1))
    )
    drain(scheduler)
    submit_all(scheduler, 3)
    scheduler.step()
    sessions = scheduler.queues._by_id
    for id in ("r0", "r1"):
        scheduler.pause(id)
    seen = []
    while scheduler.has_work:
        scheduler.step()
        scheduler.check()
        held = [id for id in ("r0", "r1") if sessions[id].n_past]
        if not seen or seen[-1] != held:
            seen.append(held)
        if held != ["r0", "r1"]:
            assert scheduler.stats().evicted_cells >= 12
    assert seen == [["r0", "r1"], ["r0"]]


def test_paused_session_keeps_its_cells_until_they_are_needed() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=48, parallel=2)
    submit_all(scheduler, 3)
    outcome = Outcome()
    outcome.add(scheduler.step())
    scheduler.pause("r0")
    assert scheduler.stats().cells_used == 20
    while set(outcome.last) != {"r1", "r2"}:
        outcome.add(scheduler.step())
        scheduler.check()
    assert len(outcome.tokens["r0"]) == 1
    assert not scheduler.has_work
    scheduler.resume("r0")
    drain(scheduler, outcome)
    assert_all_whole(outcome, 3, 48)


def test_a_paused_session_gives_its_slot_away_and_takes_it_back() -> None:
    scheduler, runner = make_scheduler(n_cells=256, n_ctx=48, parallel=2)
    submit_all(scheduler, 4)
    outcome = Outcome()
    outcome.add(scheduler.step())
    scheduler.pause("r0")
    outcome.add(scheduler.step())
    assert list(states(scheduler).values()) == ["paused", "decode", "decode", "waiting"]
    scheduler.resume("r0")
    outcome.add(scheduler.step())
    assert list(states(scheduler).values()) == ["decode", "decode", "waiting", "waiting"]
    assert [row.n_past for row in runner.batches[-1]] == [10, 11]
    drain(scheduler, outcome)
    assert_all_whole(outcome, 4, 48)
    # r2 waited with its cells: nothing was computed twice.
    assert sum(len(row.tokens) for batch in runner.batches for row in batch) == 4 * (10 + 29)
    assert scheduler.stats().preemptions == 0


def test_sessions_outside_of_the_scheduler_can_take_its_last_cells() -> None:
    scheduler, _ = make_scheduler(n_cells=48, n_ctx=48)
    foreign = scheduler.pool.alloc(30)
    submit_all(scheduler, 2)
    outcome = Outcome()
    while scheduler.has_work:
        outcome.add(scheduler.step())
    for id in ("r0", "r1"):
        assert outcome.finish(id) is FinishReason.ERROR
        assert "is held by sessions outside of the scheduler" in str(outcome.last[id].error)
        assert len(outcome.tokens[id]) == 9
    scheduler.pool.free(foreign)
    scheduler.check()
    assert scheduler.stats().cells_used == 0


def test_a_sequence_that_loses_its_slot_to_a_session_waits_for_the_others() -> None:
    scheduler, runner = make_scheduler(n_ctx=48, parallel=2, checkpoints=1)
    slots = scheduler.pool.states
    assert slots is not None
    submit_all(scheduler, 2)
    outcome = Outcome()
    outcome.add(scheduler.step())
    runner.fail_next = DeviceError("interrupted")  # both go back to what is cached, without a slot
    with pytest.raises(DeviceError):
        scheduler.step()
    foreign = [slots.take(), slots.take()]  # one is left
    outcome.add(scheduler.step())
    foreign += [slots.take() for _ in range(slots.n_available)]
    while scheduler.has_work:
        outcome.add(scheduler.step())
        scheduler.prefix.check()
    assert_all_whole(outcome, 2, 48)
    for slot in foreign:
        slots.free(slot)
    scheduler.check()


def test_sessions_outside_of_the_scheduler_can_take_all_slots() -> None:
    scheduler, _ = make_scheduler(n_ctx=48, parallel=2, checkpoints=1)
    slots = scheduler.pool.states
    assert slots is not None
    foreign = [slots.take() for _ in range(3)]
    submit_all(scheduler, 2)
    outcome = Outcome()
    while scheduler.has_work:
        outcome.add(scheduler.step())
    for id in ("r0", "r1"):
        assert outcome.finish(id) is FinishReason.ERROR
        assert "all slots for recurrent states are held by sessions" in str(outcome.last[id].error)
    for slot in foreign:
        slots.free(slot)
    scheduler.check()


def test_a_long_prompt_waits_while_newer_ones_do_not_overtake() -> None:
    scheduler, _ = make_scheduler(n_cells=64, n_ctx=60, parallel=4)
    scheduler.submit(request("runs", prompt(1), params=LONG))
    scheduler.submit(request("big", prompt(2, 50)))
    scheduler.submit(request("small", prompt(3, 2)))
    scheduler.step()
    assert list(states(scheduler).values()) == ["decode", "waiting", "waiting"]
    outcome = drain(scheduler)
    assert outcome.tokens["big"] == MODEL.continuation(prompt(2, 50), GREEDY, 60)[0]
    assert outcome.tokens["small"] == MODEL.continuation(prompt(3, 2), GREEDY, 60)[0]


def test_old_request_under_steady_load_does_not_starve() -> None:
    scheduler, _ = make_scheduler(n_cells=60, n_ctx=48, parallel=3)
    scheduler.submit(request("big", prompt(5, 40), params=LONG))
    outcome = Outcome()
    n = 0
    while "big" not in outcome.last:
        for _ in range(2):
            scheduler.submit(request(f"n{n}", prompt(n, 1 + n % 9)))
            n += 1
        outcome.add(scheduler.step())
        scheduler.check()
        assert n < 100
    assert outcome.tokens["big"] == MODEL.continuation(prompt(5, 40), LONG, 48)[0]
    drain(scheduler, outcome)
    for i in range(n):
        assert outcome.tokens[f"n{i}"] == MODEL.continuation(prompt(i, 1 + i % 9), GREEDY, 48)[0]


def test_two_schedulers_can_share_a_prefix_index() -> None:
    scheduler, runner = make_scheduler()
    other = Scheduler(runner, scheduler.pool, scheduler.config, FakeSampler, prefix=scheduler.prefix)
    scheduler.submit(request("a", prompt(1)))
    drain(scheduler)
    other.submit(request("b", prompt(1)))
    timings = drain(other).last["b"].timings
    assert timings is not None
    assert timings.cached_n == 9
