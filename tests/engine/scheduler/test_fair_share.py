"""Whose sequences run, and whose prompts are computed, where several clients share an engine."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import MAX_PRIORITY, MAX_WEIGHT
from engine.errors import ConfigError
from engine.scheduler.fair_share import FIRST_LENGTH
from engine.scheduler.scheduler import Scheduler
from engine.types import FinishReason, InferenceParameters, Request
from support.fakes.runner import FakeRunner, Model, drain, make_scheduler, request, states
from support.quick import examples

MODEL = Model()


def demand(id: str, prompt: list[int], n: int = 4, **kwargs: object) -> Request:
    """A request for exactly `n` tokens that shares no prefix; its client is the first letter of its id."""
    params = InferenceParameters(temperature=0.0, max_tokens=n, ignore_eos=True)
    return request(id, prompt, params=params, cache_prompt=False, client=id[0], **kwargs)


def ended(scheduler: Scheduler) -> list[str]:
    """Run everything; the ids in order of their ends."""
    ids = []
    while scheduler.has_work:
        ids += [output.id for output in scheduler.step() if output.finish is not None]
        scheduler.check()
    return ids


def rows(runner: FakeRunner, n: int) -> list[int]:
    """Tokens of each sequence in a batch."""
    return [len(row.tokens) for row in runner.batches[n]]


def test_clients_take_turns_and_one_client_keeps_its_order() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    for id in ("a1", "a2", "a3", "b1", "b2"):
        scheduler.submit(demand(id, [1, 2, 3]))
    assert ended(scheduler) == ["a1", "b1", "a2", "b2", "a3"]


def test_a_client_of_large_requests_gets_fewer_of_them() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    for n in range(3):
        scheduler.submit(demand(f"a{n}", [1] * 26))
    for n in range(7):
        scheduler.submit(demand(f"b{n}", [1] * 6))
    assert ended(scheduler) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5", "a2", "b6"]


def test_weights_divide_the_slots() -> None:
    scheduler, _ = make_scheduler(parallel=4)
    for n in range(8):
        scheduler.submit(demand(f"a{n}", [1, 2], weight=1))
        scheduler.submit(demand(f"b{n}", [1, 2], weight=3))
    scheduler.step()
    assert Counter(id[0] for id, state in states(scheduler).items() if state == "decode") == {"a": 1, "b": 3}


def test_prompts_and_expected_answers_are_counted_at_admission() -> None:
    scheduler, _ = make_scheduler(parallel=3, n_cells=512)
    for n in range(3):
        scheduler.submit(demand(f"a{n}", [1, 2], n=40))  # short prompts, long answers
    for n in range(3):
        scheduler.submit(demand(f"b{n}", [1] * 17, n=4))
    scheduler.step()
    running = [id for id, state in states(scheduler).items() if state != "waiting"]
    assert running == ["a0", "b0", "b1"]


def test_the_expected_length_follows_the_answers_of_a_client() -> None:
    scheduler, _ = make_scheduler(parallel=2)
    scheduler.submit(demand("c0", [5], n=60))  # keeps the counters
    for n in range(40):
        scheduler.submit(demand(f"a{n}", [1], n=2))
    clients = scheduler.queues.fair._levels[0].clients
    first = clients["a"].length
    while any(id.startswith("a") for id in states(scheduler)) and "c0" in states(scheduler):
        scheduler.step()
    assert first == FIRST_LENGTH
    assert clients["a"].length < 20


def test_cached_prefixes_cost_nothing() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    prompt = [1 + i % 9 for i in range(40)]
    scheduler.submit(request("c", prompt, client="c"))
    drain(scheduler)
    for n in range(3):
        scheduler.submit(request(f"a{n}", prompt, client="a"))
        scheduler.submit(demand(f"b{n}", [2] * 11, n=8))
    assert ended(scheduler) == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_a_client_gets_no_credit_for_the_time_in_which_it_asked_for_nothing() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    for n in range(6):
        scheduler.submit(demand(f"a{n}", [1] * 20))
    while "a3" in states(scheduler):
        scheduler.step()
    for n in range(4):
        scheduler.submit(demand(f"b{n}", [1] * 20))
    assert ended(scheduler) == ["a4", "b0", "a5", "b1", "b2", "b3"]


def test_clients_are_equal_again_once_no_sequence_is_left() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    scheduler.submit(demand("a0", [1] * 50))
    drain(scheduler)
    assert not scheduler.queues.fair._levels
    for id in ("a1", "a2", "b1", "b2"):
        scheduler.submit(demand(id, [1] * 10))
    assert ended(scheduler) == ["a1", "b1", "a2", "b2"]


def test_sequence_cancelled_while_waiting_costs_nothing() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    for id in ("a0", "b0", "a1", "b1", "a2"):
        scheduler.submit(demand(id, [1] * 10))
    scheduler.step()
    scheduler.cancel("b0")
    assert ended(scheduler) == ["b0", "a0", "b1", "a1", "a2"]


def test_a_client_whose_weight_changes_gets_back_no_more_than_it_was_charged() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    scheduler.submit(demand("a0", [1, 2], n=40, weight=100))
    scheduler.step()
    scheduler.submit(demand("a1", [1, 2], weight=1))
    scheduler.cancel("a0")
    assert scheduler.queues.fair._levels[0].clients["a"].counter >= 0


def test_preempted_sequence_continues_before_others_begin() -> None:
    scheduler, _ = make_scheduler(n_cells=64, parallel=2)
    scheduler.submit(demand("a0", [1] * 12, n=40))
    scheduler.submit(demand("a1", [2] * 12, n=40))
    while not scheduler.stats().preemptions:
        scheduler.step()
    scheduler.submit(demand("b0", [3] * 4, n=4))
    while "b0" in (now := states(scheduler)):
        assert now["b0"] == "waiting" or now["a1"] != "waiting"
        scheduler.step()
    assert "a1" in now


# ** priorities **


def test_a_lower_number_comes_first_and_clients_take_turns_within_it() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    for id, priority in (("a0", 5), ("a1", 0), ("a2", -2), ("a3", -2), ("b0", 0), ("b1", -2)):
        scheduler.submit(demand(id, [1, 2, 3], priority=priority))
    assert ended(scheduler) == ["a2", "b1", "a3", "a1", "b0", "a0"]


def test_a_higher_priority_takes_the_place_of_the_newest_of_the_lowest() -> None:
    scheduler, _ = make_scheduler(parallel=3)
    for id, priority in (("a0", 5), ("a1", 5), ("a2", 0)):
        scheduler.submit(demand(id, [1, 2, 3], n=12, priority=priority))
    scheduler.step()
    scheduler.submit(demand("a3", [4, 5], n=2, priority=1))
    scheduler.step()
    assert states(scheduler) == {"a0": "decode", "a1": "waiting", "a2": "decode", "a3": "decode"}
    outcome = drain(scheduler)
    assert [*outcome.last] == ["a3", "a2", "a0", "a1"]
    assert scheduler.stats().preemptions == 0, "it keeps its cells"


def test_another_clients_request_of_the_same_priority_waits_for_a_slot() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    scheduler.submit(demand("a0", [1, 2, 3], n=6))
    scheduler.submit(demand("a1", [1, 2, 3], n=6))
    scheduler.submit(demand("b0", [1, 2, 3], n=6))
    assert ended(scheduler) == ["a0", "b0", "a1"], "b0 runs though a1 is older"


def test_cells_are_taken_from_the_newest_of_the_lowest_priority() -> None:
    scheduler, _ = make_scheduler(n_cells=64, parallel=3)
    texts = {}
    for id, priority in (("a0", 0), ("b0", 3), ("b1", 3), ("a1", 0)):
        params = InferenceParameters(temperature=0.0, max_tokens=30, ignore_eos=True)
        scheduler.submit(request(id, [len(texts) + 1] * 6, params=params, client=id[0], priority=priority))
        texts[id] = MODEL.continuation([len(texts) + 1] * 6, params, 64)[0]
    outcome = drain(scheduler)
    assert [*outcome.last] == ["a0", "a1", "b0", "b1"]
    assert scheduler.stats().preemptions > 0
    assert outcome.tokens == texts


def test_a_higher_priority_does_not_wait_for_cells_of_a_lower_one() -> None:
    scheduler, _ = make_scheduler(n_cells=64, parallel=4)
    scheduler.submit(demand("a0", [1] * 50, n=10, priority=1))
    scheduler.step()
    scheduler.step()
    scheduler.submit(demand("b0", [2] * 20, n=10))
    scheduler.step()
    assert states(scheduler) == {"a0": "waiting", "b0": "decode"}
    outcome = drain(scheduler)
    assert [*outcome.last] == ["b0", "a0"]
    assert {output.finish for output in outcome.last.values()} == {FinishReason.LENGTH}


def test_waiting_with_a_low_priority_gives_no_credit_in_a_higher_one() -> None:
    scheduler, _ = make_scheduler(parallel=1)
    scheduler.submit(demand("c0", [1] * 20, priority=1))
    for n in range(6):
        scheduler.submit(demand(f"a{n}", [1] * 20))
    while "a3" in states(scheduler):
        scheduler.step()
    for n in range(2):
        scheduler.submit(demand(f"b{n}", [1] * 20))
        scheduler.submit(demand(f"c{n + 1}", [1] * 20))
    assert ended(scheduler) == ["a4", "b0", "c1", "a5", "b1", "c2", "c0"]


@pytest.mark.parametrize("field", ["priority", "weight"])
@pytest.mark.parametrize("value", [-MAX_PRIORITY - 1, MAX_WEIGHT + 1])
def test_values_out_of_range_are_refused(field: str, value: int) -> None:
    scheduler, _ = make_scheduler()
    with pytest.raises(ConfigError, match=f"{field} is {value}; it must be"):
        scheduler.submit(demand("a", [1], **{field: value}))


# ** prompts **


def test_clients_share_what_a_step_computes_of_prompts() -> None:
    scheduler, runner = make_scheduler(n_cells=512, max_batch_tokens=32, n_ctx=128)
    for id, weight, n in (("a0", 1, 100), ("a1", 1, 100), ("b0", 3, 100)):
        scheduler.submit(demand(id, [1] * n, weight=weight))
    scheduler.step()
    assert rows(runner, 0) == [24, 8]
    scheduler.submit(demand("c0", [1] * 3))
    scheduler.step()
    # What c does not need, the others share.
    assert rows(runner, 1) == [3, 22, 7]


def test_the_highest_priority_gets_all_that_it_can_use() -> None:
    scheduler, runner = make_scheduler(n_cells=512, max_batch_tokens=32, n_ctx=128)
    for id, priority in (("a0", 0), ("b0", 0), ("c0", -1)):
        scheduler.submit(demand(id, [1] * 40, priority=priority))
    for _ in range(2):
        scheduler.step()
    assert rows(runner, 0) == [32]
    assert rows(runner, 1) == [8, 12, 12]


def test_sequence_waiting_for_a_shared_prefix_takes_no_share() -> None:
    scheduler, runner = make_scheduler(n_cells=512, max_batch_tokens=16, n_ctx=128)
    for id in "ab":
        scheduler.submit(request(id, [1 + i % 9 for i in range(64)], client=id))
    for _ in range(3):
        scheduler.step()
    assert [rows(runner, n) for n in range(3)] == [[8], [16], [16]]


# ** shares **

SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=3, max_size=12)
CLIENTS = st.lists(st.tuples(st.integers(1, 5), SIZES), min_size=2, max_size=4)


@examples(100)
@given(CLIENTS, st.randoms(use_true_random=False))
def test_shares_differ_by_less_than_one_request_from_the_weights(clients, random) -> None:
    scheduler, _ = make_scheduler(parallel=1)
    weights = {"abcd"[i]: weight for i, (weight, _) in enumerate(clients)}
    costs = {
        f"{name}{n}": sum(size)
        for name, (_, sizes) in zip("abcd", clients, strict=False)
        for n, size in enumerate(sizes)
    }
    requests = [
        demand(f"{name}{n}", [1] * n_prompt, n_tokens, weight=weight)
        for name, (weight, sizes) in zip("abcd", clients, strict=False)
        for n, (n_prompt, n_tokens) in enumerate(sizes)
    ]
    random.shuffle(requests)
    for each in requests:
        scheduler.submit(each)
    used, left = Counter(), Counter(id[0] for id in costs)
    most = max(costs.values())
    for id in ended(scheduler):
        used[id[0]] += costs[id]
        left[id[0]] -= 1
        for one, other in combinations(weights, 2):
            if left[one] and left[other]:
                difference = abs(used[one] / weights[one] - used[other] / weights[other])
                assert difference <= most / min(weights[one], weights[other]) + 1e-9
    assert not any(left.values()), "nothing starves"


def test_shares_follow_the_weights_where_many_run_at_once_and_lengths_vary() -> None:
    scheduler, _ = make_scheduler(n_cells=1024, parallel=4)
    weights, n_each = {"a": 1, "b": 3}, 120
    for n in range(n_each):
        for name, weight in weights.items():
            # b's requests are few long and many short ones
            size = 1 + (n * 7) % 30 if name == "a" else 40 if n % 10 == 0 else 5
            scheduler.submit(demand(f"{name}{n}", [1] * size, 1 + (n * 5) % 20, weight=weight))
    used, left = Counter(), Counter(dict.fromkeys(weights, n_each))
    while left["a"] and left["b"]:
        for output in scheduler.step():
            if output.finish is not None:
                assert output.timings is not None
                used[output.id[0]] += output.timings.prompt_n + output.timings.predicted_n
                left[output.id[0]] -= 1
    assert used["b"] / used["a"] == pytest.approx(3, rel=0.15)
