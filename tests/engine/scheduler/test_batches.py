"""What is computed together: chunks of prompts, decode rows, shared beginnings, and the masks of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from engine.cache.cell_pool import CellPool
from engine.config import SchedulerConfig
from engine.scheduler.batch import BatchItem
from engine.scheduler.pace import STRETCH
from engine.scheduler.scheduler import Scheduler
from engine.types import InferenceParameters
from support.fakes.runner import (
    EOG,
    GREEDY,
    FakeRunner,
    FakeSampler,
    Model,
    Outcome,
    drain,
    make_scheduler,
    picture,
    request,
    states,
)

MODEL = Model()
SHORT = InferenceParameters(temperature=0.0, max_tokens=3, ignore_eos=True)
LONG = InferenceParameters(temperature=0.0, max_tokens=30, ignore_eos=True)


def shape(batch: list[BatchItem]) -> list[tuple[int, int]]:
    """(n_past, new tokens) of each row."""
    return [(row.n_past, len(row.tokens)) for row in batch]


@pytest.mark.parametrize("n_batch", [1, 3, 8, 20, 64, 512])
@pytest.mark.parametrize("n_prompt", [1, 2, 8, 9, 20, 33])
def test_a_prompt_is_fed_in_chunks_of_n_batch(n_batch: int, n_prompt: int) -> None:
    scheduler, runner = make_scheduler(max_batch_tokens=20)
    prompt = [1 + i % 7 for i in range(n_prompt)]
    scheduler.submit(request("a", prompt, n_batch=n_batch))
    outcome = drain(scheduler)
    chunks = [len(batch[0].tokens) for batch in runner.batches if batch[0].n_past < n_prompt]
    limit = min(n_batch, 20)
    assert sum(chunks) == n_prompt
    assert max(chunks) <= limit
    assert len(chunks) == -(-n_prompt // limit)
    # Only the last chunk asks for logits, and the text does not depend on the chunks.
    assert [batch[0].logits for batch in runner.batches[: len(chunks)]] == [False] * (len(chunks) - 1) + [
        True
    ]
    assert outcome.tokens["a"] == MODEL.continuation(prompt, GREEDY, 64)[0]


def test_mask_of_one_sequence_is_causal() -> None:
    scheduler, runner = make_scheduler(n_cells=8, n_ctx=8)
    scheduler.submit(request("a", [1, 2, 3, 4], n_batch=3))
    drain(scheduler)
    assert [picture(batch, 8) for batch in runner.batches[:4]] == [
        ["x.......", "xx......", "xxx....."],
        ["xxxx...."],
        ["xxxxx..."],
        ["xxxxxx.."],
    ]


def test_mask_of_unrelated_sequences_is_block_diagonal() -> None:
    scheduler, runner = make_scheduler(n_cells=12, n_ctx=8)
    scheduler.submit(request("a", [1, 2, 3], params=SHORT))
    scheduler.submit(request("b", [4, 5], params=SHORT))
    drain(scheduler)
    assert [picture(batch, 12) for batch in runner.batches[:3]] == [
        ["x...........", "xx..........", "xxx.........", "...x........", "...xx......."],
        ["xxx..x......", "...xx.x....."],
        ["xxx..x.x....", "...xx.x.x..."],
    ]


def test_mask_of_sequences_with_a_shared_prefix_includes_it() -> None:
    scheduler, runner = make_scheduler(n_cells=14, n_ctx=10)
    scheduler.submit(request("a", [1, 2, 3, 4], params=SHORT))
    scheduler.submit(request("b", [1, 2, 3, 5, 6], params=SHORT))
    drain(scheduler)
    assert [picture(batch, 14) for batch in runner.batches[:3]] == [
        ["x.............", "xx............", "xxx...........", "xxxx.........."],  # b waits for its beginning
        ["xxxxx.........", "xxx..x........", "xxx..xx......."],  # and computes only what differs
        ["xxxxx..x......", "xxx..xx.x....."],
    ]


def test_running_sessions_decode_in_every_step_alongside_a_long_prompt() -> None:
    scheduler, runner = make_scheduler(n_cells=512, n_ctx=128, max_batch_tokens=16)
    for n in range(3):
        scheduler.submit(request(f"s{n}", [n + 1] * 3, params=LONG))
    outcome = Outcome()
    outcome.add(scheduler.step())
    scheduler.submit(request("long", list(range(10, 40)) * 3, n_batch=8))
    while "long" not in outcome.last and len(runner.batches) < 15:
        before = {f"s{n}": len(outcome.tokens[f"s{n}"]) for n in range(3)}
        outcome.add(scheduler.step())
        for id, n in before.items():
            assert len(outcome.tokens[id]) == n + 1
    # Decode rows come first; the prompt adds one chunk, within its n_batch and the batch.
    assert [shape(batch)[3:] for batch in runner.batches[1:4]] == [[(0, 8)], [(8, 8)], [(16, 8)]]
    assert all(len(row.tokens) == 1 and row.logits for row in runner.batches[1][:3])
    drain(scheduler, outcome)
    for n in range(3):
        assert outcome.tokens[f"s{n}"] == MODEL.continuation([n + 1] * 3, LONG, 128)[0]


def test_prompts_share_what_decoding_leaves_of_the_batch_in_order_of_arrival() -> None:
    scheduler, runner = make_scheduler(max_batch_tokens=10)
    scheduler.submit(request("s", [9], params=LONG))
    scheduler.step()
    for n in (1, 2, 3):
        scheduler.submit(request(f"p{n}", [n] * 11, n_batch=6))
    for _ in range(4):
        scheduler.step()
    assert [shape(batch) for batch in runner.batches[1:]] == [
        [(1, 1), (0, 6), (0, 3)],
        [(2, 1), (6, 5), (3, 4)],  # p1's prompt is complete
        [(3, 1), (11, 1), (7, 4), (0, 4)],
        [(4, 1), (12, 1), (11, 1), (4, 6)],
    ]


def test_prompt_progresses_in_however_small_a_rest_of_the_batch() -> None:
    scheduler, runner = make_scheduler(parallel=4, max_batch_tokens=4)
    for n in range(3):
        scheduler.submit(request(f"s{n}", [n + 1], params=LONG))
    scheduler.step()
    scheduler.submit(request("p", [7] * 6, params=LONG))
    for _ in range(6):
        scheduler.step()
    assert [shape(batch)[3:] for batch in runner.batches[1:]] == [[(n, 1)] for n in range(6)]


def test_sessions_are_admitted_in_order_of_arrival() -> None:
    scheduler, _ = make_scheduler(parallel=2)
    for n in range(6):
        scheduler.submit(request(f"r{n}", [n + 1] * (12 - n)))
    first_seen: list[str] = []
    while scheduler.has_work:
        for emission in scheduler.step():
            if emission.tokens and emission.id not in first_seen:
                first_seen.append(emission.id)
        assert sum(state in ("prefill", "decode") for state in states(scheduler).values()) <= 2
    assert first_seen == [f"r{n}" for n in range(6)]


def test_identical_prompts_are_computed_once() -> None:
    scheduler, runner = make_scheduler(max_batch_tokens=16)
    prompt = [1 + i % 9 for i in range(40)]
    params = [InferenceParameters(seed=n, max_tokens=6) for n in range(6)]
    for n in range(6):
        scheduler.submit(request(f"r{n}", prompt, params=params[n], n_batch=8))
    outcome = drain(scheduler)
    computed = Counter(
        p
        for batch in runner.batches
        for row in batch
        for p in range(row.n_past, row.n_past + len(row.tokens))
        if p < 40
    )
    # Everybody computes the last token, for its logits; the rest is computed by the first.
    assert computed == {p: 6 if p == 39 else 1 for p in range(40)}
    for n in range(6):
        assert outcome.tokens[f"r{n}"] == MODEL.continuation(prompt, params[n], 64)[0]
        timings = outcome.last[f"r{n}"].timings
        assert timings is not None
        assert (timings.cached_n, timings.prompt_n) == ((39, 1) if n else (0, 40))
    assert scheduler.stats().cached_tokens == 5 * 39
    assert scheduler.stats().missed_tokens == {"new": 39}


def test_session_waits_only_until_the_shared_prefix_is_computed() -> None:
    scheduler, runner = make_scheduler(n_cells=512, n_ctx=128, max_batch_tokens=32)
    scheduler.submit(request("long", [1] * 16 + [2] * 80, n_batch=8))
    scheduler.submit(request("short", [1] * 16 + [3] * 4, n_batch=8))
    for _ in range(3):
        scheduler.step()
    assert [shape(batch) for batch in runner.batches] == [[(0, 8)], [(8, 8)], [(16, 8), (16, 4)]]


def test_a_few_shared_tokens_are_not_worth_waiting_for() -> None:
    scheduler, runner = make_scheduler()
    scheduler.submit(request("a", [1] + [2] * 10))  # as if it were a beginning-of-sequence token
    scheduler.submit(request("b", [1] + [3] * 10))
    scheduler.step()
    assert shape(runner.batches[0]) == [(0, 11), (0, 11)]


@pytest.mark.parametrize("end", ["cancel", "fail", "pause"])
def test_sequence_waiting_for_a_prefix_continues_if_the_other_ends(end: str) -> None:
    scheduler, runner = make_scheduler(max_batch_tokens=8)
    prompt = [1 + i % 9 for i in range(40)]
    scheduler.submit(request("a", prompt))
    scheduler.submit(request("b", prompt))
    outcome = Outcome()
    for _ in range(2):
        outcome.add(scheduler.step())
    assert states(scheduler) == {"a": "prefill", "b": "prefill"}
    assert [shape(batch) for batch in runner.batches] == [[(0, 8)], [(8, 8)]]
    if end == "cancel":
        scheduler.cancel("a")
    elif end == "pause":
        scheduler.pause("a")
    else:
        runner.fail_next = RuntimeError("lost")
    drain(scheduler, outcome)
    assert outcome.tokens["b"] == MODEL.continuation(prompt, GREEDY, 64)[0]
    timings = outcome.last["b"].timings
    assert timings is not None
    assert timings.cached_n == (0 if end == "fail" else 16)


def test_without_cache_prompt_nothing_is_shared() -> None:
    scheduler, _ = make_scheduler()
    prompt = [1 + i % 9 for i in range(20)]
    expected, _ = MODEL.continuation(prompt, GREEDY, 64)
    scheduler.submit(request("off1", prompt, cache_prompt=False))
    scheduler.submit(request("off2", prompt, cache_prompt=False))
    outcome = drain(scheduler)
    assert scheduler.stats().cells_cached == 0
    scheduler.submit(request("on", prompt))
    drain(scheduler, outcome)
    scheduler.submit(request("off3", prompt, cache_prompt=False))
    drain(scheduler, outcome)
    scheduler.submit(request("on2", prompt))
    drain(scheduler, outcome)
    cached = {id: emission.timings and emission.timings.cached_n for id, emission in outcome.last.items()}
    assert cached == {"off1": 0, "off2": 0, "on": 0, "off3": 0, "on2": 19}
    assert all(tokens == expected for tokens in outcome.tokens.values())


def test_the_next_turn_of_a_chat_reuses_prompt_and_answer() -> None:
    scheduler, _ = make_scheduler(n_cells=512, n_ctx=200)
    history = [11, 12, 13]
    computed = 0
    for turn in range(4):
        prompt = [*history, 20 + turn, 30 + turn]
        scheduler.submit(request(f"t{turn}", prompt))
        outcome = drain(scheduler)
        answer = outcome.tokens[f"t{turn}"]
        assert answer == MODEL.continuation(prompt, GREEDY, 200)[0]
        timings = outcome.last[f"t{turn}"].timings
        assert timings is not None
        # All but the last token of the answer was computed, that one and the new question were not.
        assert timings.cached_n == (len(history) - 1 if turn else 0)
        computed += timings.prompt_n
        history = prompt + answer
    assert scheduler.stats().prompt_tokens == computed


def test_a_retry_computes_one_token() -> None:
    scheduler, runner = make_scheduler()
    prompt = [1 + i % 9 for i in range(20)]
    texts = []
    for n in range(3):
        scheduler.submit(request(f"r{n}", prompt))
        texts.append(drain(scheduler).tokens[f"r{n}"])
    assert texts[0] == texts[1] == texts[2] == MODEL.continuation(prompt, GREEDY, 64)[0]
    first_rows = [batch[0] for batch in runner.batches if batch[0].n_past < 20]
    assert [(row.n_past, len(row.tokens)) for row in first_rows] == [(0, 20), (19, 1), (19, 1)]


def test_a_longer_and_a_shorter_prompt_share_the_middle_of_a_node() -> None:
    scheduler, _ = make_scheduler()
    prompts = {
        "whole": [1] * 10 + [2] * 10,
        "shorter": [1] * 10,
        "other": [1] * 12,
        "longer": [1] * 10 + [2] * 15,
    }
    outcome = Outcome()
    for id, prompt in prompts.items():
        scheduler.submit(request(id, prompt))
        drain(scheduler, outcome)
        assert outcome.tokens[id] == MODEL.continuation(prompt, GREEDY, 64)[0]
    cached = {id: emission.timings and emission.timings.cached_n for id, emission in outcome.last.items()}
    # "whole" went on with its answer, so "longer" shares its 20 tokens, and may share more.
    assert (cached["whole"], cached["shorter"]) == (0, 9)
    assert cached["other"] is not None
    assert cached["other"] >= 10
    assert cached["longer"] is not None
    assert cached["longer"] >= 20


def test_text_does_not_depend_on_concurrent_requests() -> None:
    prompts = [[1 + (n * k) % 13 for k in range(4 + 3 * n)] for n in range(8)]
    params = [InferenceParameters(seed=n, max_tokens=24) if n % 2 else LONG for n in range(8)]
    scheduler, _ = make_scheduler(n_cells=1024, max_batch_tokens=24)
    for n in range(8):
        scheduler.submit(request(f"r{n}", prompts[n], params=params[n], n_batch=5))
    together = drain(scheduler)
    for n in range(8):
        alone, runner = make_scheduler(n_cells=1024, max_batch_tokens=24)
        assert isinstance(runner, FakeRunner)
        alone.submit(request("alone", prompts[n], params=params[n]))
        assert together.tokens[f"r{n}"] == drain(alone).tokens["alone"]
        assert together.tokens[f"r{n}"] == MODEL.continuation(prompts[n], params[n], 64)[0]


class TimedRunner(FakeRunner):
    """A step costs 10 ms and half a millisecond for each row of it."""

    def forward(self, rows: Sequence[BatchItem]) -> int:
        n_logits = super().forward(rows)
        self.compute_ms = 10.0 + 0.5 * sum(len(row.tokens) for row in rows)
        return n_logits


def test_prompt_beside_a_stream_is_fed_in_chunks_bounded_by_time() -> None:
    runner = TimedRunner(1024, 512)
    config = SchedulerConfig(parallel=2, n_ctx=512, max_batch_tokens=512, eog_ids=frozenset({EOG}))
    scheduler = Scheduler(runner, CellPool(1024), config, FakeSampler)
    scheduler.submit(request("stream", [1] * 40, params=LONG))
    for _ in range(3):
        scheduler.step()
    scheduler.submit(request("prompt", [2] * 400, params=SHORT))
    outcome = drain(scheduler)
    beside = [len(batch[1].tokens) for batch in runner.batches if len(batch) == 2 and batch[1].n_past < 400]
    assert len(beside) > 10
    assert all((STRETCH - 1) * 0.8 <= 0.5 * n / 10.5 <= STRETCH - 1 for n in beside[8:-1])
    assert outcome.tokens["prompt"] == MODEL.continuation([2] * 400, SHORT, 512)[0]


def test_a_prompt_without_a_stream_is_fed_by_n_batch() -> None:
    runner = TimedRunner(1024, 512)
    config = SchedulerConfig(parallel=2, n_ctx=512, max_batch_tokens=512, eog_ids=frozenset({EOG}))
    scheduler = Scheduler(runner, CellPool(1024), config, FakeSampler)
    for id in ("a", "b"):
        scheduler.submit(request(id, [ord(id) % 7] * 200, n_batch=100))
        drain(scheduler)
    assert [len(batch[0].tokens) for batch in runner.batches if len(batch[0].tokens) > 1] == [100] * 4
