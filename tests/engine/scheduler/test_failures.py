"""When a computation fails: who ends, who goes on, and what is not trusted any more."""

from __future__ import annotations

import pytest

from engine.errors import DeviceError, OutOfMemoryError
from engine.types import FinishReason, InferenceParameters, Token
from support.fakes.runner import GREEDY, FakeSampler, Model, Outcome, drain, make_scheduler, request

MODEL = Model()
PROMPT = [5, 6, 7, 8, 9, 10]


def test_a_failing_batch_ends_its_sessions_only() -> None:
    scheduler, runner = make_scheduler(parallel=2)
    for id, prompt in (("a", [1] * 9), ("b", [2] * 9), ("c", [3] * 9), ("d", [1] * 9)):
        scheduler.submit(request(id, prompt))
    outcome = Outcome()
    outcome.add(scheduler.step())
    outcome.add(scheduler.step())
    runner.fail_next = RuntimeError("the device was lost")
    outcome.add(scheduler.step())
    for id in ("a", "b"):
        assert (outcome.finish(id), outcome.last[id].error) == (FinishReason.ERROR, "the device was lost")
    assert scheduler.stats().cells_used == scheduler.stats().cells_cached == 0  # nothing of it is trusted
    drain(scheduler, outcome)
    assert outcome.tokens["c"] == MODEL.continuation([3] * 9, GREEDY, 64)[0]
    assert outcome.tokens["d"] == MODEL.continuation([1] * 9, GREEDY, 64)[0]


def test_too_little_memory_ends_the_largest_request_only() -> None:
    scheduler, runner = make_scheduler(parallel=3)
    outcome = Outcome()
    for id, prompt in (("a", [1] * 4), ("b", [2] * 12), ("c", [3] * 6)):
        scheduler.submit(request(id, prompt))
    runner.fail_next = OutOfMemoryError("the device is full")
    outcome.add(scheduler.step())
    scheduler.check()
    assert (outcome.finish("b"), outcome.last["b"].error) == (FinishReason.ERROR, "the device is full")
    assert outcome.last["b"].out_of_memory
    drain(scheduler, outcome)
    for id, prompt in (("a", [1] * 4), ("c", [3] * 6)):
        assert outcome.tokens[id] == MODEL.continuation(prompt, GREEDY, 64)[0]
        assert not outcome.last[id].out_of_memory


def test_too_little_memory_for_drafts_ends_drafting_and_no_request(caplog: pytest.LogCaptureFixture) -> None:
    scheduler, runner = make_scheduler()
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    scheduler._builder.drafting.choose = (  # type: ignore[method-assign]
        lambda sequences, room: [expected[s.n_generated :][:2] for s in sequences]
    )
    scheduler.submit(request("a", PROMPT, draft_max=4))
    outcome = Outcome()
    while not scheduler.stats().draft_tokens:
        outcome.add(scheduler.step())
    before = scheduler.stats()
    runner.fail_next = OutOfMemoryError("no room for the compute buffers")
    drain(scheduler, outcome)
    assert (outcome.tokens["a"], outcome.finish("a")) == MODEL.continuation(PROMPT, GREEDY, 64)
    assert scheduler.stats().draft_tokens == before.draft_tokens
    assert "speculative decoding is disabled: no room" in caplog.text


def test_a_failing_sampler_behind_a_right_draft_loses_no_token() -> None:
    scheduler, _ = make_scheduler()
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    scheduler._builder.drafting.choose = (  # type: ignore[method-assign]
        lambda sequences, room: [expected[s.n_generated :][:3] for s in sequences]
    )
    scheduler.submit(request("a", PROMPT, draft_max=4))
    outcome = Outcome()
    outcome.add(scheduler.step())
    sequence = scheduler.queues.get("a")
    assert sequence is not None
    sampler = sequence.sampler
    assert isinstance(sampler, FakeSampler)
    sample, n = sampler.sample, 0

    def failing(logits: memoryview, mask: memoryview | None = None) -> Token:
        nonlocal n
        n += 1
        if n == 3:
            raise RuntimeError("no finite logit")
        return sample(logits, mask)

    sampler.sample = failing  # type: ignore[method-assign]
    drain(scheduler, outcome)
    assert outcome.tokens["a"] == expected[:3]  # that of the prompt, and two of the step that failed
    assert (outcome.finish("a"), outcome.last["a"].error) == (FinishReason.ERROR, "no finite logit")


def test_lost_device_is_raised_to_the_caller_without_changes() -> None:
    scheduler, runner = make_scheduler()
    scheduler.submit(request("a", PROMPT))
    outcome = Outcome()
    outcome.add(scheduler.step())
    runner.fail_next = DeviceError("the device is gone")
    with pytest.raises(DeviceError, match="is gone"):
        scheduler.step()
    scheduler.check()
    drain(scheduler, outcome)
    assert outcome.tokens["a"] == MODEL.continuation(PROMPT, GREEDY, 64)[0]


def test_cells_of_a_failed_session_are_cleared_unless_shared() -> None:
    scheduler, runner = make_scheduler()
    scheduler.submit(request("first", PROMPT))
    outcome = drain(scheduler)
    shared = [i for i, cell in enumerate(runner.cells) if cell is not None]  # in the prefix cache
    scheduler.submit(request("second", [*PROMPT, 4, 4, 4], params=InferenceParameters(temperature=-1.0)))
    drain(scheduler, outcome)
    assert outcome.finish("second") is FinishReason.ERROR
    assert [i for i, cell in enumerate(runner.cells) if cell is not None] == shared


def test_wrong_number_of_logits_fails_the_batch() -> None:
    scheduler, runner = make_scheduler()
    runner.forward = lambda rows: 2  # type: ignore[method-assign]
    scheduler.submit(request("a", PROMPT))
    outcome = drain(scheduler)
    assert outcome.last["a"].error == "the runner gave 2 rows of logits instead of 1"


def test_an_interrupted_batch_is_computed_again() -> None:
    scheduler, runner = make_scheduler()
    for id in ("a", "b"):
        scheduler.submit(request(id, PROMPT, cache_prompt=False))
    outcome = Outcome()
    for _ in range(4):
        scheduler.check()
        runner.fail_next = KeyboardInterrupt()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            scheduler.step()
        scheduler.check()
        outcome.add(scheduler.step())
    drain(scheduler, outcome)
    expected, _ = MODEL.continuation(PROMPT, GREEDY, 64)
    assert outcome.tokens == {"a": expected, "b": expected}


def test_a_failing_sampler_ends_its_session_only() -> None:
    scheduler, _ = make_scheduler()
    scheduler.submit(request("bad", PROMPT, params=InferenceParameters(temperature=-1.0)))
    scheduler.submit(request("good", [9, 8, 7]))
    outcome = drain(scheduler)
    assert outcome.last["bad"].error == "temperature must not be negative"
    assert outcome.tokens["bad"] == []
    assert outcome.tokens["good"] == MODEL.continuation([9, 8, 7], GREEDY, 64)[0]
