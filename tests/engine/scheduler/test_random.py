"""Random scripts of everything that can happen: each text must be the one that its request gives alone."""

from __future__ import annotations

import random
import time

import pytest

from engine.cache.window_rows import WindowRows
from engine.config import DRAFT_MODEL, NGRAM
from engine.scheduler.draft_model import ModelDrafter
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.sequence import ScheduledSequence
from engine.types import FinishReason, InferenceParameters, Request
from support.fakes.drafts import check_drafter, draft_at_random, draft_by_model
from support.fakes.runner import N_VOCAB, FakeRunner, Model, Outcome, make_scheduler, request
from support.quick import every

ENDS = {FinishReason.STOP, FinishReason.LENGTH}


class Script:
    """One random life of a scheduler. `run` plays it and checks after each step what must always hold."""

    def __init__(
        self,
        seed: int,
        *,
        calm: bool = False,
        original_context_length: int = 0,
        recurrent: bool = False,
        shifts: bool = False,
        drafts: bool = False,
        by_model: bool = False,
        windowed: bool = False,
        shared: bool = False,
    ) -> None:
        self.recurrent, self.shifts = recurrent, shifts
        self.rng = random.Random(seed)
        self.original_context_length, self.model = original_context_length, Model(original_context_length)
        self.drafts = drafts  # of sequences that decode, at random: right ones, wrong ones, and none
        self.shared = shared  # by clients of different weights and requests of different priorities
        self.by_model = by_model  # drafted
        self.calm = calm  # without pauses, failures and cancels, so that stricter rules hold
        rng = self.rng
        self.hungry = rng.random() < 0.5  # short prompts and long answers, which is what exhausts the cells
        self.n_ctx = 64 if self.hungry else rng.choice([16, 32, 48])
        self.parallel = rng.randint(1, 6)
        self.max_batch = rng.randint(self.parallel, 40)
        n_cells = self.n_ctx + rng.choice([0, 5, 40, 200])
        interval = rng.choice([4, 9, 512])
        self.windows = windows_of_draft = None
        if windowed:
            window = rng.randint(2, 12)
            slack = rng.randint(1, 5)
            n_rows = self.parallel * (window - 1 + 2 * slack) + self.max_batch + rng.choice([0, 5, 30])
            self.windows = WindowRows(n_rows, window, n_cells, interval, slack=slack)
            windows_of_draft = WindowRows(n_rows, window, n_cells, interval, slack=slack)
        self.scheduler: Scheduler
        self.runner: FakeRunner
        self.scheduler, self.runner = make_scheduler(
            n_cells,
            parallel=self.parallel,
            n_ctx=self.n_ctx,
            max_batch_tokens=self.max_batch,
            original_context_length=original_context_length,
            checkpoints=rng.randint(1, 6) if recurrent else 0,
            interval=interval,
            context_shift=shifts,
            windows=self.windows,
        )
        self.drafter: ModelDrafter | None = None
        if by_model:
            n_cells = n_cells if windowed else rng.choice([n_cells, self.n_ctx])
            self.drafter, self.draft_runner = draft_by_model(
                self.scheduler, rng, n_cells=n_cells, n_ctx=self.n_ctx, windows=windows_of_draft
            )
        elif drafts:
            draft_at_random(self.scheduler, rng, lambda id: self.expected[id][0], N_VOCAB)
        self.stems = [[rng.randrange(1, 5) for _ in range(self.n_ctx)] for _ in range(3)]
        self.requests: dict[str, Request] = {}
        self.expected: dict[str, tuple[list[int], FinishReason]] = {}
        self.paused: set[str] = set()
        self.outcome = Outcome()

    def run(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.act()
            self.step()
        for id in list(self.paused):
            self.resume(id)
        for _ in range(20_000 if self.shifts else 3000):
            if not self.scheduler.has_work:
                break
            self.step()
        self.verify()

    def act(self) -> None:
        rng, live = self.rng, [id for id in self.requests if id not in self.outcome.last]
        roll = rng.random()
        if roll < (0.15 if self.hungry else 0.35):
            for _ in range(rng.choice([1, 1, 1, 4])):
                self.submit()
        elif self.calm or not live:
            return
        elif roll < 0.40:
            id = rng.choice(live)
            assert self.scheduler.cancel(id)
            self.paused.discard(id)
        elif roll < 0.50:
            id = rng.choice(live)
            assert self.scheduler.pause(id)
            self.paused.add(id)
        elif roll < 0.60 and self.paused:
            self.resume(rng.choice(sorted(self.paused)))
        elif roll < 0.62:
            self.runner.fail_next = RuntimeError("lost")
        elif roll < 0.63:
            self.runner.fail_next = KeyboardInterrupt()  # type: ignore[assignment]

    def submit(self) -> None:
        rng, id = self.rng, f"r{len(self.requests)}"
        n = rng.randint(1, self.n_ctx // 4 if self.hungry else self.n_ctx - 1)
        prompt = rng.choice(self.stems)[:n]
        if rng.random() < 0.5:
            prompt = prompt[: rng.randint(0, n)] + [rng.randrange(1, 5) for _ in range(rng.randint(1, 5))]
            prompt = prompt[: self.n_ctx - 1]
        elif rng.random() < 0.3 and self.expected:  # the next turn of a chat, or a retry
            last = rng.choice(sorted(self.expected))
            whole = self.requests[last].prompt + self.expected[last][0] + [7]
            prompt = whole[: self.n_ctx - 1]
        params = InferenceParameters(
            temperature=rng.choice([0.0, 1.0]),
            seed=rng.randrange(5),
            repeat_penalty=rng.choice([1.0, 3.0]),
            max_tokens=rng.choice([30, 60, 100] if self.shifts else self.limits()),
            min_tokens=rng.choice([0, 0, 5]),
            ignore_eos=rng.random() < (0.8 if self.hungry else 0.3),
            stop_token_ids=(rng.randrange(40),) if rng.random() < 0.3 else (),
        )
        n_keep = rng.choice([0, 1, 5, 100]) if self.shifts else 0
        n_discard = rng.choice([0, 0, 1, 7]) if self.shifts else 0
        if self.shifts:
            expected, reason = self.model.shifted(prompt, params, self.n_ctx, n_keep, n_discard)
        else:
            expected, reason = self.model.continuation(prompt, params, self.n_ctx)
        known = expected[: rng.randint(0, len(expected))] if rng.random() < 0.2 else []
        self.requests[id] = request(
            id,
            prompt,
            params=params,
            n_batch=rng.choice([1, 3, 8, 512]),
            cache_prompt=rng.random() < 0.8,
            draft_max=rng.choice([0, 1, 5, 32]) if self.drafts else 0,
            spec_type=DRAFT_MODEL if self.by_model else NGRAM,
            generated=known,
            n_keep=n_keep,
            n_discard=n_discard,
            boundaries=[rng.randint(1 + len(prompt) // 2, len(prompt)) for _ in range(rng.choice([0, 3]))],
            deadline_ms=time.monotonic() * 1e3 + 1e6 if rng.random() < 0.1 else None,
            **self.share(),
        )
        self.expected[id] = expected, reason
        self.outcome.tokens[id] = list(known)
        self.scheduler.submit(self.requests[id])

    def share(self) -> dict[str, object]:
        """Client, weight and priority of a request."""
        if not self.shared:
            return {}
        n = self.rng.randrange(3)
        return {"client": f"c{n}", "weight": 1 + 3 * n, "priority": self.rng.choice([0, 0, 0, -1, 5])}

    def limits(self) -> list[int | None]:
        return [None, 40] if self.hungry else [None, 0, 1, 3, 20]

    def resume(self, id: str) -> None:
        self.paused.discard(id)
        self.scheduler.resume(id)

    def step(self) -> None:
        scheduler, admission = self.scheduler, self.scheduler.queues
        before = {
            s.id: len(s.tokens)
            for s in admission.running
            if s.n_pending == 1 and not (self.shifts and len(s.tokens) == self.n_ctx)
        }
        failing = self.runner.fail_next is not None
        n_batches = len(self.runner.batches)
        try:
            emissions = scheduler.step()
        except KeyboardInterrupt:
            scheduler.check()
            return
        self.outcome.add(emissions)
        scheduler.check()
        if self.drafter is not None:
            check_drafter(self.drafter, self.draft_runner)
        self.paused -= set(self.outcome.last)
        running: list[ScheduledSequence] = admission.running
        if not failing:
            for session in running:  # whoever could decode, and was not preempted, did
                if session.id in before and before[session.id] != self.original_context_length + 1:
                    n_new = len(session.tokens) - before[session.id]
                    assert 1 <= n_new <= 1 + session.request.draft_max
        assert {s.id for s in admission.paused} == self.paused
        for batch in self.runner.batches[n_batches:]:
            assert sum(len(row.tokens) for row in batch) <= self.max_batch
            assert len(batch) <= self.parallel
        if self.calm and not self.shared and running and admission.waiting:
            assert running[-1].arrival < admission.waiting[0].arrival
        stats = scheduler.stats()
        assert stats.cells_used + stats.cells_cached + scheduler.pool.n_free == stats.cells_total
        if (windows := scheduler.pool.windows) is not None:
            known = stats.window_rows_used + stats.window_rows_cached + windows.n_free
            assert known == stats.window_rows_total == windows.n_rows

    def verify(self) -> None:
        assert not self.scheduler.has_work
        assert set(self.outcome.last) == set(self.requests)
        for id, (expected, reason) in self.expected.items():
            emission, tokens = self.outcome.last[id], self.outcome.tokens[id]
            if emission.finish in ENDS:
                assert (tokens, emission.finish) == (expected, reason)
                assert emission.timings is not None
                assert emission.timings.predicted_n == len(tokens)
                assert emission.timings.draft_accepted <= emission.timings.draft_n
                assert emission.timings.cached_n < len(self.requests[id].prompt)
                assert emission.timings.n_batch == min(self.requests[id].n_batch, self.max_batch)
            else:
                assert not self.calm
                assert tokens == expected[: len(tokens)]
                assert emission.finish in (FinishReason.CANCELLED, FinishReason.ERROR)
        stats = self.scheduler.stats()
        assert (stats.running, stats.waiting, stats.cells_used) == (0, 0, 0)
        assert not list(self.scheduler.queues)
        assert self.scheduler.prefix.evict(stats.cells_total) == stats.cells_cached
        assert self.scheduler.pool.n_free == stats.cells_total
        if self.drafter is not None:
            assert not self.drafter._sequences
            assert self.drafter.enabled
        if self.windows is not None:
            assert self.windows.n_free == self.windows.n_available == self.windows.n_rows


@pytest.mark.parametrize("seed", every(20, range(30)))
def test_sessions_start_and_end_at_random(seed: int) -> None:
    Script(seed).run(70)


@pytest.mark.parametrize("seed", every(20, range(100, 120)))
def test_without_disturbance_all_are_served_in_order(seed: int) -> None:
    Script(seed, calm=True).run(50)


@pytest.mark.parametrize("seed", every(20, range(200, 220)))
def test_sessions_become_long_at_random(seed: int) -> None:
    """With 13 tokens a session is to be computed anew, and shares nothing with short ones."""
    Script(seed, original_context_length=12).run(60)


@pytest.mark.parametrize("seed", every(20, range(300, 340)))
def test_sequences_with_recurrent_states_start_and_end_at_random(seed: int) -> None:
    Script(seed, recurrent=True).run(70)


@pytest.mark.parametrize("seed", every(20, range(400, 420)))
def test_recurrent_states_without_disturbance_are_served_in_order(seed: int) -> None:
    Script(seed, calm=True, recurrent=True).run(50)


@pytest.mark.parametrize("seed", every(20, range(500, 520)))
def test_sequences_with_recurrent_states_become_long_at_random(seed: int) -> None:
    Script(seed, original_context_length=12, recurrent=True).run(60)


@pytest.mark.parametrize("seed", every(20, range(600, 630)))
def test_contexts_shift_at_random(seed: int) -> None:
    Script(seed, shifts=True).run(30)


@pytest.mark.parametrize("seed", every(20, range(700, 720)))
def test_contexts_of_recurrent_states_shift_at_random(seed: int) -> None:
    Script(seed, shifts=True, recurrent=True).run(30)


@pytest.mark.parametrize("seed", every(20, range(800, 820)))
def test_contexts_shift_between_long_and_short_at_random(seed: int) -> None:
    Script(seed, shifts=True, original_context_length=12).run(30)


@pytest.mark.parametrize("seed", every(20, range(1000, 1040)))
def test_sequences_with_drafts_start_and_end_at_random(seed: int) -> None:
    Script(seed, drafts=True).run(70)


@pytest.mark.parametrize("seed", every(20, range(1100, 1120)))
def test_drafts_without_disturbance_are_served_in_order(seed: int) -> None:
    Script(seed, calm=True, drafts=True).run(50)


@pytest.mark.parametrize("seed", every(20, range(1200, 1220)))
def test_sequences_with_drafts_become_long_at_random(seed: int) -> None:
    Script(seed, original_context_length=12, drafts=True).run(60)


@pytest.mark.parametrize("seed", every(20, range(1300, 1310)))
def test_recurrent_sequences_have_no_drafts(seed: int) -> None:
    script = Script(seed, recurrent=True, drafts=True)
    script.run(40)
    assert script.scheduler.stats().draft_tokens == 0


@pytest.mark.parametrize("seed", every(20, range(1400, 1430)))
def test_contexts_shift_behind_drafts_at_random(seed: int) -> None:
    Script(seed, shifts=True, drafts=True).run(30)


@pytest.mark.parametrize("seed", every(20, range(1500, 1540)))
def test_sequences_with_windows_start_and_end_at_random(seed: int) -> None:
    Script(seed, windowed=True).run(70)


@pytest.mark.parametrize("seed", every(20, range(1600, 1620)))
def test_windows_without_disturbance_are_served_in_order(seed: int) -> None:
    Script(seed, calm=True, windowed=True).run(50)


@pytest.mark.parametrize("seed", every(20, range(1700, 1720)))
def test_windows_alongside_recurrent_states_start_and_end_at_random(seed: int) -> None:
    Script(seed, windowed=True, recurrent=True, original_context_length=12 * (seed % 2)).run(60)


@pytest.mark.parametrize("seed", every(20, range(1800, 1820)))
def test_contexts_with_windows_shift_at_random(seed: int) -> None:
    Script(seed, shifts=True, windowed=True).run(30)


@pytest.mark.parametrize("seed", every(20, range(1900, 1940)))
def test_sequences_with_windows_and_drafts_start_and_end_at_random(seed: int) -> None:
    Script(seed, windowed=True, drafts=True, shifts=bool(seed % 2)).run(50)


@pytest.mark.parametrize("seed", every(20, range(2000, 2040)))
def test_sequences_of_several_clients_and_priorities_start_and_end_at_random(seed: int) -> None:
    Script(seed, shared=True, recurrent=seed % 4 == 1, drafts=seed % 4 == 2, windowed=seed % 4 == 3).run(70)


@pytest.mark.parametrize("seed", every(20, range(2100, 2120)))
def test_without_disturbance_all_clients_and_priorities_are_served(seed: int) -> None:
    Script(seed, shared=True, calm=True, recurrent=seed % 4 == 1, windowed=seed % 4 == 3).run(50)


@pytest.mark.parametrize("seed", every(20, range(2200, 2260)))
def test_sequences_with_a_draft_model_start_and_end_at_random(seed: int) -> None:
    Script(seed, drafts=True, by_model=True, original_context_length=12 * (seed % 3 == 0)).run(60)


@pytest.mark.parametrize("seed", every(20, range(2300, 2340)))
def test_contexts_and_windows_of_a_draft_model_shift_at_random(seed: int) -> None:
    Script(seed, drafts=True, by_model=True, windowed=seed % 3 > 0, shifts=seed % 3 < 2).run(40)


def test_random_scripts_cover_every_event() -> None:
    """A script that never preempts, evicts or reuses would show nothing."""
    preemptions = evicted = cached = n_right = n_wrong = by_model = 0
    for seed in range(30):
        script = Script(seed, drafts=seed >= 10, by_model=seed >= 20)
        script.run(40)
        stats = script.scheduler.stats()
        preemptions += stats.preemptions
        evicted += stats.evicted_cells
        cached += stats.cached_tokens
        n_right += stats.draft_accepted_tokens
        n_wrong += stats.draft_tokens - stats.draft_accepted_tokens
        by_model += stats.draft_accepted_tokens * script.by_model
    assert preemptions >= 5
    assert min(evicted, cached, n_right, n_wrong, by_model) > 100


def test_random_scripts_with_windows_cover_every_event() -> None:
    """Sequences outgrow their windows, go on from checkpoints, and these give way."""
    outgrown = cached = evicted = 0
    for seed in range(10):
        script = Script(seed, windowed=True)
        windows = script.windows
        assert windows is not None
        forget = windows.forget

        def counting(holder: object, windows: WindowRows = windows, forget: object = forget) -> None:
            nonlocal evicted
            evicted += holder in windows.checkpoints
            forget(holder)  # type: ignore[operator]

        windows.forget = counting  # type: ignore[method-assign]
        script.run(40)
        cached += script.scheduler.stats().cached_tokens
        outgrown += sum(len(batch[0].cells) > 2 * windows.window for batch in script.runner.batches)
    assert min(outgrown, cached, evicted) > 100
