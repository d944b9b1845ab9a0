"""A draft model beside a scheduler: its cells follow the texts, and it gives way where it does not pay."""

from __future__ import annotations

import math
import random
from array import array
from typing import Any

import pytest

from engine.cache.prefix_cache import Match
from engine.cache.window_rows import WindowRows
from engine.config import DRAFT_MODEL
from engine.errors import ConfigError, DeviceError, GgmlError, OutOfMemoryError
from engine.scheduler.draft_model import FEW, FIRST_CHANCE, SMALLEST_CHUNK, ModelDrafter
from engine.scheduler.drafter import Worth
from engine.scheduler.drafting import StepCosts
from engine.scheduler.scheduler import Scheduler
from engine.types import InferenceParameters, Request
from support.fakes.drafts import ErringRunner, check_drafter, draft_by_model
from support.fakes.runner import Model, Outcome, make_scheduler, request

MODEL = Model()
PROMPT = [5, 6, 7, 8, 9, 10]
LONG = InferenceParameters(temperature=0.0, max_tokens=30, ignore_eos=True)


def drafting(id: str, prompt: list[int], draft_max: int = 4, **fields: object) -> Request:
    return request(id, prompt, draft_max=draft_max, spec_type=DRAFT_MODEL, **{"params": LONG, **fields})


def drain(scheduler: Scheduler, drafter: ModelDrafter, runner: ErringRunner) -> Outcome:
    outcome = Outcome()
    while scheduler.has_work:
        outcome.add(scheduler.step())
        scheduler.check()
        check_drafter(drafter, runner)
    return outcome


def right(prompt: list[int], params: InferenceParameters = LONG) -> list[int]:
    return MODEL.continuation(prompt, params, 64)[0]


def test_draft_model_that_always_agrees_saves_steps() -> None:
    scheduler, target = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    prompts = {"a": PROMPT, "b": [4, 3, 2], "c": [*PROMPT, 1]}
    for id, prompt in prompts.items():
        scheduler.submit(drafting(id, prompt))
    outcome = drain(scheduler, drafter, runner)
    assert outcome.tokens == {id: right(prompt) for id, prompt in prompts.items()}
    stats = scheduler.stats()
    assert stats.draft_accepted_tokens == stats.draft_tokens > 60
    assert len(target.batches) < 12
    for id in prompts:
        timings = outcome.last[id].timings
        assert timings is not None
        assert timings.draft_n == timings.draft_accepted > 20


def test_draft_model_goes_back_behind_a_wrong_draft() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.4)
    for id, prompt in (("a", PROMPT), ("b", [4, 3, 2])):
        scheduler.submit(drafting(id, prompt))
    outcome = drain(scheduler, drafter, runner)
    assert outcome.tokens == {"a": right(PROMPT), "b": right([4, 3, 2])}
    stats = scheduler.stats()
    assert 0 < stats.draft_accepted_tokens < stats.draft_tokens
    computed = sum(len(item.tokens) for batch in runner.batches for item in batch)
    assert computed < 2 * 30 + len(PROMPT) + 3 + stats.draft_tokens  # right drafts are not computed again


def test_requests_by_lookup_and_without_drafts_share_a_batch_with_it() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    scheduler.submit(drafting("model", PROMPT))
    scheduler.submit(request("lookup", [1, 2, 3] * 4, params=LONG, draft_max=4))
    scheduler.submit(request("none", [2, 3], params=LONG))
    outcome = drain(scheduler, drafter, runner)
    assert outcome.tokens == {"model": right(PROMPT), "lookup": right([1, 2, 3] * 4), "none": right([2, 3])}
    assert all(item.cells for batch in runner.batches for item in batch)
    assert max(len(batch) for batch in runner.batches) == 1  # only one sequence is drafted by the model


def test_a_request_for_a_draft_model_that_is_not_there_is_refused() -> None:
    scheduler, _ = make_scheduler()
    with pytest.raises(ConfigError, match="'draft-simple'; this model drafts with ngram-simple"):
        scheduler.submit(drafting("a", PROMPT))
    scheduler.submit(drafting("a", PROMPT, draft_max=0))


@pytest.mark.parametrize(("salts", "shared"), [(("", ""), True), (("x", "y"), False)])
def test_draft_models_prompts_are_shared_like_the_targets(salts: tuple[str, str], shared: bool) -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    prompt = [1, 2, 3, 4] * 5
    n_computed = []
    for id, salt in zip("ab", salts, strict=True):
        runner.batches.clear()
        scheduler.submit(drafting(id, prompt, cache_salt=salt))
        drain(scheduler, drafter, runner)
        n_computed.append(sum(len(item.tokens) for batch in runner.batches for item in batch))
    assert (n_computed[1] < n_computed[0] - 15) == shared


def test_a_request_that_caches_nothing_leaves_nothing_to_the_draft_model() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1))
    scheduler.submit(drafting("a", PROMPT, cache_prompt=False))
    drain(scheduler, drafter, runner)
    assert drafter._pool.n_free == drafter._pool.n_cells


def test_no_wrong_draft_stays_in_the_prefix_cache() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=1.0)
    scheduler.submit(drafting("a", PROMPT))
    for _ in range(5):
        scheduler.step()
    text = [*PROMPT, *right(PROMPT)]
    scheduler.cancel("a")
    scheduler.step()
    check_drafter(drafter, runner)
    cells = [cell for node in drafter._prefix.nodes() for cell in node.cells]
    assert len(PROMPT) <= len(cells) < len(text)
    contents = sorted(content[1::-1] for content in map(runner.cells.__getitem__, cells) if content)
    assert contents == list(enumerate(text[: len(cells)]))


def test_paused_sequences_give_their_cells_to_those_that_run() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=40)
    scheduler.submit(drafting("a", PROMPT * 3, cache_prompt=False))
    for _ in range(4):
        scheduler.step()
    assert drafter._sequences["a"].n_past > 18
    scheduler.pause("a")
    scheduler.submit(drafting("b", [4, 3, 2]))
    while "b" in scheduler.queues:
        scheduler.step()
        check_drafter(drafter, runner)
    assert not drafter._sequences["a"].n_past
    scheduler.resume("a")
    assert drain(scheduler, drafter, runner).last["a"].finish == "length"


def test_draft_model_without_cells_drafts_nothing_and_fails_nothing() -> None:
    scheduler, _ = make_scheduler()
    drafter, _ = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=64)
    held = drafter._pool.alloc(60)
    scheduler.submit(drafting("a", PROMPT))
    outcome = Outcome()
    while scheduler.has_work:
        outcome.add(scheduler.step())
    assert outcome.tokens["a"] == right(PROMPT)
    assert not scheduler.stats().draft_tokens
    drafter._pool.free(held)


def test_a_text_longer_than_the_draft_models_context_ends_without_drafts() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_ctx=20)
    scheduler.submit(drafting("a", PROMPT))
    assert drain(scheduler, drafter, runner).tokens["a"] == right(PROMPT)
    assert max(len(item.cells) for batch in runner.batches for item in batch) <= 20


def test_tokens_that_the_draft_model_lacks_end_its_drafts() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    drafter._n_vocab = 30
    scheduler.submit(drafting("a", [5, 6, 35]))
    scheduler.submit(drafting("b", PROMPT))
    outcome = drain(scheduler, drafter, runner)
    assert outcome.tokens == {"a": right([5, 6, 35]), "b": right(PROMPT)}
    assert all(token < 30 for batch in runner.batches for item in batch for token in item.tokens)


@pytest.mark.parametrize("error", [OutOfMemoryError("full"), GgmlError("full")])
def test_failed_draft_model_is_disabled(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    scheduler.submit(drafting("a", PROMPT))
    scheduler.submit(drafting("b", [4, 3, 2]))
    for _ in range(3):
        scheduler.step()
    runner.fail_next = error
    outcome = drain(scheduler, drafter, runner)
    assert [outcome.last[id].finish for id in "ab"] == ["length", "length"]
    assert "the draft model is disabled: full" in caplog.text
    assert drafter._pool.n_free + drafter._prefix.n_evictable == drafter._pool.n_cells


def test_a_device_that_is_lost_under_the_draft_model_is_reported_to_the_caller() -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    scheduler.submit(drafting("a", PROMPT))
    scheduler.step()
    runner.fail_next = DeviceError("lost")
    with pytest.raises(DeviceError, match="lost"):
        scheduler.step()
    check_drafter(drafter, runner)


def test_a_long_prompt_is_caught_up_in_chunks_alongside_other_streams() -> None:
    scheduler, _ = make_scheduler(n_ctx=200)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_ctx=200)
    drafter._max_batch_tokens = 512
    drafter._token_ms = 1.0
    scheduler.submit(drafting("a", [1, 2, 3, 4] * 25, params=LONG))
    scheduler.drafting._best_number = (  # type: ignore[method-assign]
        lambda n_rows, candidates: (len(candidates), Worth(0.0, 0.0, 20.0, is_alone=False))
    )
    runner.max_batch_tokens = 512
    drain(scheduler, drafter, runner)
    sizes = [len(batch[0].tokens) for batch in runner.batches]
    assert sizes[:5] == [20, 20, 20, 20, 20]
    assert SMALLEST_CHUNK < 20


def test_one_prompt_of_several_requests_is_computed_once() -> None:
    scheduler, _ = make_scheduler(1024, n_ctx=200, max_batch_tokens=200)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=1024, n_ctx=200)
    prompt = [1, 2, 3, 4] * 25
    for id in "abcd":
        scheduler.submit(drafting(id, prompt))
    drain(scheduler, drafter, runner)
    assert sum(len(item.tokens) >= 32 for batch in runner.batches for item in batch) == 1
    assert scheduler.stats().draft_accepted_tokens > 60


@pytest.mark.parametrize(("token_ms", "drafts"), [(0.2, True), (1.0, False)])
def test_a_prompt_is_computed_only_where_the_rest_of_the_text_can_save_that(
    token_ms: float, drafts: bool
) -> None:
    scheduler, _ = make_scheduler(n_ctx=200)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_ctx=200)
    costed(scheduler, drafter, draft_ms=1.0)
    drafter._token_ms = token_ms
    scheduler.submit(drafting("a", [1, 2, 3, 4] * 30))  # 30 tokens follow, each in 10 ms
    drain(scheduler, drafter, runner)
    assert (scheduler.stats().draft_tokens > 0) == drafts


def test_the_draft_model_makes_checkpoints_where_the_target_does() -> None:
    windows = WindowRows(200, 8, 256, 512, slack=2)
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), windows=windows)
    prompt = [1 + i % 4 for i in range(58)]
    scheduler.submit(drafting("a", prompt, boundaries=[40]))
    drain(scheduler, drafter, runner)
    assert drafter._prefix.match(array("i", [*prompt[:40], 9, 9])).n == 40


def test_a_window_goes_back_behind_a_wrong_draft_without_computing_it_again() -> None:
    windows = WindowRows(60, 8, 256, 512, slack=2)
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.5, windows=windows)
    scheduler.submit(drafting("a", PROMPT, cache_prompt=False))
    assert drain(scheduler, drafter, runner).tokens["a"] == right(PROMPT)
    assert [batch[0].n_past for batch in runner.batches].count(0) == 1


class KnownCosts(StepCosts):
    """Those of a step of `ms`, whose further rows take `row` of that, whatever is measured."""

    def __init__(self, ms: float, row: float) -> None:
        super().__init__()
        for _ in range(20):
            for n in (1, 5):
                super().measured(n, ms * (1 + row * (n - 1)), ms * (1 + row * (n - 1)))

    def measured(self, rows: int, compute_ms: float, ms: float) -> None:
        pass

    def fade(self, factor: float) -> None:
        pass


def costed(scheduler: Scheduler, drafter: ModelDrafter, *, draft_ms: float, row: float = 0.1) -> None:
    """Let it draft as it pays, beside a target whose step takes 10 ms."""
    del scheduler.drafting._best_number, scheduler.drafting._affords
    scheduler.drafting.costs, drafter.costs = KnownCosts(10.0, row), KnownCosts(draft_ms, 0.1)


@pytest.mark.parametrize(("draft_ms", "drafts"), [(0.5, True), (2.0, True), (9.0, False)])
def test_draft_model_drafts_only_if_it_is_fast_enough(draft_ms: float, drafts: bool) -> None:
    scheduler, _ = make_scheduler()
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0)
    costed(scheduler, drafter, draft_ms=draft_ms)
    scheduler.submit(drafting("a", PROMPT))
    drain(scheduler, drafter, runner)
    assert (scheduler.stats().draft_tokens > 0) == drafts


def test_a_full_batch_drafts_less() -> None:
    numbers = []
    for n in (1, 4, 8):
        scheduler, _ = make_scheduler(512)
        drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=512)
        costed(scheduler, drafter, draft_ms=1.0, row=0.5)
        for i in range(n):
            scheduler.submit(drafting(f"{i}", [i + 1, 2, 3]))
        drain(scheduler, drafter, runner)
        stats = scheduler.stats()
        numbers.append(stats.draft_tokens / stats.predicted_tokens)
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0.3
    assert numbers[-1] < 0.1


def test_a_model_that_is_wrong_is_soon_left_alone_and_tried_again_later() -> None:
    scheduler, _ = make_scheduler(1024, n_ctx=1000)
    drafter, _ = draft_by_model(scheduler, random.Random(1), errs=1.0, n_cells=1024, n_ctx=1000)
    costed(scheduler, drafter, draft_ms=2.0)
    drafter._token_ms = 0.05
    params = InferenceParameters(temperature=0.0, max_tokens=900, ignore_eos=True)
    scheduler.submit(drafting("a", PROMPT, params=params))
    drafted = []
    while scheduler.has_work:
        scheduler.step()
        drafted.append(scheduler.stats().draft_tokens)
    n_first = drafted[60]
    assert 0 < n_first < 60
    assert n_first < drafted[-1] < n_first + 100
    assert scheduler.stats().draft_accepted_tokens < 0.1 * drafted[-1]


def test_chances_begin_as_they_are_for_any_text() -> None:
    scheduler, _ = make_scheduler()
    drafter, _ = draft_by_model(scheduler, random.Random(1))
    scheduler.submit(drafting("a", PROMPT))
    sequence = scheduler.queues.get("a")
    assert sequence is not None
    assert list(drafter.chances(sequence, 3)) == [FIRST_CHANCE] * 3
    assert drafter.round_ms == drafter.row_ms == 0.0
    assert not math.isnan(drafter.costs.row)


def lost(runner: ErringRunner, scheduler: Scheduler, draft_ms: float, token_ms: float) -> float:
    """Steps that drafts have cost, by `costed`."""
    ms = 0.0
    for batch in runner.batches:
        n = sum(len(item.tokens) for item in batch)
        ms += draft_ms * (1 + 0.1 * (n - 1)) if n < FEW else n * token_ms
    stats = scheduler.stats()
    return ms / 10.0 + 0.1 * stats.draft_tokens - stats.draft_accepted_tokens


@pytest.mark.parametrize(("draft_ms", "errs"), [(0.3, 1.0), (1.0, 0.9), (4.0, 1.0)])
def test_a_model_that_is_wrong_costs_no_text_more_than_three_percent(draft_ms: float, errs: float) -> None:
    scheduler, _ = make_scheduler(2048, n_ctx=1500)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=errs, n_cells=2048, n_ctx=1500)
    costed(scheduler, drafter, draft_ms=draft_ms)
    drafter._token_ms = token_ms = draft_ms / 10
    before = 0.0
    for i, n in enumerate((300, 300, 600)):
        params = InferenceParameters(temperature=0.0, max_tokens=n, ignore_eos=True)
        scheduler.submit(drafting(f"{i}", [i + 1, *PROMPT * 3], params=params))
        while scheduler.has_work:
            scheduler.step()
        after = lost(runner, scheduler, draft_ms, token_ms)
        assert after - before <= 0.03 * n
        assert i or after
        before = after


def test_a_model_that_is_right_after_all_is_found_out() -> None:
    scheduler, _ = make_scheduler(1024, n_ctx=1000)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=1.0, n_cells=1024, n_ctx=1000)
    costed(scheduler, drafter, draft_ms=0.5)
    drafter._token_ms = 0.05
    for i in range(12):
        runner.errs = float(i < 6)
        before = scheduler.stats().draft_accepted_tokens
        params = InferenceParameters(temperature=0.0, max_tokens=100, ignore_eos=True)
        scheduler.submit(drafting(f"{i}", [i + 1, 2, 3], params=params))
        while scheduler.has_work:
            scheduler.step()
    assert scheduler.stats().draft_accepted_tokens - before > 60


def test_a_long_prompt_is_computed_once_shorter_texts_have_saved_its_time() -> None:
    scheduler, _ = make_scheduler(2048, n_ctx=1000, max_batch_tokens=512)
    drafter, _ = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=2048, n_ctx=1000)
    costed(scheduler, drafter, draft_ms=1.0)
    drafter._token_ms = 0.3
    drafted = []
    for i, prompt in enumerate(([1] * 500, PROMPT, [2] * 500)):
        before = scheduler.stats().draft_tokens
        params = InferenceParameters(temperature=0.0, max_tokens=100, ignore_eos=True)
        scheduler.submit(drafting(f"{i}", prompt, params=params))
        while scheduler.has_work:
            scheduler.step()
        drafted.append(scheduler.stats().draft_tokens - before)
    assert drafted[0] == 0
    assert min(drafted[1:]) > 50


def test_a_text_that_does_not_pay_is_sought_again_only_if_others_left_more_of_it() -> None:
    scheduler, _ = make_scheduler(1024, n_ctx=500, max_batch_tokens=512)
    drafter, runner = draft_by_model(scheduler, random.Random(1), errs=0.0, n_cells=1024, n_ctx=500)
    costed(scheduler, drafter, draft_ms=1.0)
    drafter._token_ms = 1.0
    sought = []
    acquire = drafter._prefix.acquire

    def counting(*args: Any) -> Match:
        sought.append(args)
        return acquire(*args)

    drafter._prefix.acquire = counting  # type: ignore[method-assign]
    scheduler.submit(drafting("a", [1, 2] * 200))
    while scheduler.has_work:
        scheduler.step()
    assert not runner.batches
    assert len(sought) == 1
