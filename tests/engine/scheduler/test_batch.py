"""Which tokens a batch gets, and with which cells."""

from __future__ import annotations

from collections.abc import Sequence

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.cache.state_slots import StateSlots
from engine.config import SchedulerConfig
from engine.scheduler.admission import Admission
from engine.scheduler.batch import Batch, BatchBuilder
from engine.scheduler.queues import SequenceQueues
from engine.scheduler.sequence import ScheduledSequence, SequenceState
from engine.types import Request
from support.fakes.runner import FakeRunner

CONFIG = SchedulerConfig(n_ctx=64, max_batch_tokens=16)


class Setting:
    def __init__(
        self, n_cells: int = 128, max_batch_tokens: int = 16, states: StateSlots | None = None
    ) -> None:
        self.pool = CellPool(n_cells, states)
        self.prefix = PrefixCache(self.pool)
        self.queues = SequenceQueues()
        admission = Admission(self.queues, self.pool, self.prefix, parallel=8)
        self.builder = BatchBuilder(admission, max_batch_tokens)

    def run(
        self, prompt: list[int], n_past: int = 0, n_batch: int = 512, draft_max: int = 0
    ) -> ScheduledSequence:
        arrival = 1 + len(self.queues.running)
        request = Request(id=f"r{arrival}", prompt=prompt, n_batch=n_batch, draft_max=draft_max)
        sequence = ScheduledSequence(request, self.pool, self.prefix, CONFIG, arrival=arrival, now=0.0)
        self.queues.add(sequence)
        self.queues.move(sequence, SequenceState.RUNNING)
        if n_past:
            sequence.grow(n_past)
            sequence.n_past = n_past
        return sequence

    def build(self) -> Batch:
        return self.builder.build(self.queues.running)


def shape(batch: Batch) -> list[tuple[str, int, int, int]]:
    return [
        (sequence.id, item.n_past, len(item.tokens), item.logits)
        for sequence, item in zip(batch.sequences, batch.items, strict=True)
    ]


def test_build_takes_decodes_first_and_then_chunks_by_arrival() -> None:
    setting = Setting(max_batch_tokens=10)
    setting.run([1, *range(20, 32)], n_batch=4)
    setting.run([2, 3, 4], n_past=2)
    setting.run([3, *range(40, 60)])
    assert shape(setting.build()) == [("r2", 2, 1, 1), ("r1", 0, 4, 0), ("r3", 0, 5, 0)]


def test_build_requests_logits_only_for_the_end_of_a_prompt() -> None:
    setting = Setting()
    setting.run([1, 2, 3, 4], n_past=1)
    batch = setting.build()
    assert shape(batch) == [("r1", 1, 3, 1)]
    assert batch.n_logits == 1
    assert batch.needing_logits() == batch.sequences


def test_build_shrinks_a_chunk_to_the_free_cells() -> None:
    setting = Setting(n_cells=6)
    setting.run([1, *range(20, 32)])
    assert shape(setting.build()) == [("r1", 0, 6, 0)]
    assert setting.pool.n_free == 0


def test_build_leaves_out_a_prompt_without_any_cell() -> None:
    setting = Setting(n_cells=4)
    setting.run([1, *range(20, 32)])
    setting.pool.alloc(4)
    assert not setting.build()


def test_build_counts_cached_prompt_tokens() -> None:
    setting = Setting()
    first = setting.run([1, 2, 3, 4, 5], n_past=5)
    first.release()
    setting.queues.remove(first)
    setting.run([1, 2, 3, 4, 9, 9])
    batch = setting.build()
    assert (shape(batch), batch.n_cached) == ([("r1", 4, 2, 1)], 4)


def test_pop_largest_removes_sequence_and_item() -> None:
    setting = Setting()
    setting.run([1, 2], n_past=1)
    large = setting.run([2, *range(20, 26)])
    batch = setting.build()
    assert batch.pop_largest() is large
    assert shape(batch) == [("r1", 1, 1, 1)]


def test_build_leaves_out_sequences_that_find_no_slot_for_their_state() -> None:
    states = StateSlots(3, FakeRunner(8, 8, n_slots=3).copy, interval=512)
    setting = Setting(states=states)
    elsewhere = states.take()
    for first in range(1, 4):
        setting.run([first])
    batch = setting.build()
    assert shape(batch) == [("r1", 0, 1, 1), ("r2", 0, 1, 1)]
    assert len({elsewhere, *(item.slot for item in batch.items)}) == 3
    states.free(elsewhere)
    third = setting.queues.running[2]
    assert shape(setting.builder.build([third])) == [("r3", 0, 1, 1)]


def test_build_ends_a_chunk_where_a_checkpoint_is_due() -> None:
    states = StateSlots(4, FakeRunner(8, 8, n_slots=4).copy, interval=10)
    setting = Setting(max_batch_tokens=64, states=states)
    sequence = setting.run([*range(1, 26)])
    sizes = []
    while sequence.n_pending:
        batch = setting.build()
        sizes += [len(item.tokens) for item in batch.items]
        sequence.n_past += sizes[-1]
        sequence.publish()
    assert sizes == [10, 10, 5]
    ends = {len(node.tokens) for node in setting.prefix.nodes() if node.checkpoint >= 0}
    assert ends == {10, 5}


def drafting(setting: Setting, *drafts: list[int]) -> list[int]:
    """Let the builder draft so; returns the room that it had, step by step."""
    rooms: list[int] = []

    def choose(sequences: Sequence[ScheduledSequence], room: int) -> list[list[int]]:
        rooms.append(room)
        return [draft[:] for draft in drafts]

    setting.builder.drafting.choose = choose  # type: ignore[method-assign]
    return rooms


def test_build_adds_drafts_after_the_last_token_with_logits_for_all() -> None:
    setting = Setting()
    setting.run([1, 2, 3], n_past=2, draft_max=4)
    setting.run([4, 5], n_past=1)
    drafting(setting, [7, 8], [])
    batch = setting.build()
    assert shape(batch) == [("r1", 2, 3, 3), ("r2", 1, 1, 1)]
    assert batch.items[0].tokens == [3, 7, 8]
    assert batch.items[0].draft == [7, 8]
    assert batch.items[1].draft == []
    assert (batch.n_decode, batch.n_draft, batch.n_logits) == (2, 2, 4)
    assert batch.sequences[0].tokens.tolist() == [1, 2, 3]  # a draft is no text


def test_build_leaves_prompts_half_of_a_step_alongside_drafts() -> None:
    setting = Setting(max_batch_tokens=16)
    setting.run([1, 2], n_past=1, draft_max=32)
    setting.run([3, *range(40, 80)])
    rooms = drafting(setting, [9] * 7)
    assert shape(setting.build()) == [("r1", 1, 8, 8), ("r2", 0, 8, 0)]
    assert rooms == [7]


def test_build_shrinks_drafts_to_the_cells_that_running_sequences_leave() -> None:
    setting = Setting(n_cells=8)
    setting.run([1, 2], n_past=1, draft_max=4)
    setting.run([3, 4], n_past=1, draft_max=4)
    drafting(setting, [7, 7, 7], [8, 8, 8])
    assert shape(setting.build()) == [("r1", 1, 4, 4), ("r2", 1, 2, 2)]
    assert setting.pool.n_free == 0


def test_build_evicts_only_the_cells_that_drafts_need() -> None:
    setting = Setting(n_cells=16)
    cached = setting.run([9, *range(20, 33)], n_past=14)
    cached.release()
    setting.queues.remove(cached)
    setting.run([1, 2], n_past=1, draft_max=4)
    drafting(setting, [])
    setting.build()
    assert setting.prefix.n_evicted == 0
    setting.queues.running[0].trim()
    drafting(setting, [7, 7])
    assert shape(setting.build()) == [("r1", 1, 3, 3)]
    assert setting.prefix.n_evicted == 2


def test_steps_of_sequences_that_never_draft_are_not_measured_for_drafts() -> None:
    setting = Setting()
    setting.run([1, 2], n_past=1)
    setting.builder.measured(setting.build(), 10.0, 11.0)
    assert setting.builder.drafting.costs.last_rows == 0


def test_measured_counts_drafts_as_rows_of_streams() -> None:
    setting = Setting()
    setting.run([1, 2], n_past=1, draft_max=4)
    drafting(setting, [7, 7, 7])
    batch = setting.build()
    setting.builder.measured(batch, 10.0, 11.0)
    assert setting.builder.drafting.costs.last_rows == 4
    assert setting.builder.pace.limit(1) is None  # nothing is known of prompts
