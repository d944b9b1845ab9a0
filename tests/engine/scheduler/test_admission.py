"""Who may run, who waits for a shared prefix, and who is preempted."""

from __future__ import annotations

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import PrefixCache
from engine.config import SchedulerConfig
from engine.scheduler.admission import HEADROOM, WORTH_WAITING, Admission
from engine.scheduler.queues import SequenceQueues
from engine.scheduler.sequence import ScheduledSequence, SequenceState
from engine.types import InferenceParameters, Request

CONFIG = SchedulerConfig(n_ctx=64)


class Setting:
    """An admission whose sequences are computed by hand."""

    def __init__(self, n_cells: int, parallel: int = 4) -> None:
        self.pool = CellPool(n_cells)
        self.prefix = PrefixCache(self.pool)
        self.queues = SequenceQueues()
        self.admission = Admission(self.queues, self.pool, self.prefix, parallel)
        self.n = 0

    def add(self, prompt: list[int], *, cached: bool = True, max_tokens: int = 32) -> ScheduledSequence:
        self.n += 1
        params = InferenceParameters(max_tokens=max_tokens)
        request = Request(id=f"r{self.n}", prompt=prompt, params=params)
        prefix = self.prefix if cached else None
        sequence = ScheduledSequence(request, self.pool, prefix, CONFIG, arrival=self.n, now=0.0)
        self.queues.add(sequence)
        return sequence

    def compute(self, sequence: ScheduledSequence, n: int) -> None:
        sequence.grow(n)
        sequence.n_past += n


def prompt(first: int, n: int) -> list[int]:
    return [first, *range(100, 100 + n - 1)]


def test_admit_stops_at_the_first_that_does_not_fit() -> None:
    setting = Setting(n_cells=10 + 2 * HEADROOM + 5)
    first, large, small = setting.add(prompt(1, 10)), setting.add(prompt(2, 10)), setting.add(prompt(3, 2))
    setting.admission.admit()
    assert setting.queues.running == [first]
    assert setting.queues.waiting == [large, small], "a later one must not overtake"


def test_admit_of_a_single_sequence_ignores_free_cells() -> None:
    setting = Setting(n_cells=10)
    only = setting.add(prompt(1, 10))
    setting.admission.admit()
    assert only.state is SequenceState.RUNNING


def test_admit_gives_an_older_sequence_the_place_of_the_newest() -> None:
    setting = Setting(n_cells=200, parallel=2)
    first, second, third = (setting.add(prompt(n, 4)) for n in (1, 2, 3))
    setting.queues.move(first, SequenceState.PAUSED)
    setting.admission.admit()
    assert setting.queues.running == [second, third]
    setting.compute(third, 4)
    setting.queues.move(first, SequenceState.WAITING)
    setting.admission.admit()
    assert setting.queues.running == [first, second]
    assert (third.state, third.n_past) == (SequenceState.WAITING, 4), "it keeps its cells"
    setting.admission.check()


def test_make_room_evicts_prefixes_then_idle_then_the_newest() -> None:
    setting = Setting(n_cells=16)
    cached = setting.add(prompt(9, 4))
    setting.compute(cached, 4)
    cached.release()
    setting.queues.remove(cached)
    old, new, paused = (setting.add(prompt(n, 4), cached=False) for n in (1, 2, 3))
    for sequence in (old, new, paused):
        setting.compute(sequence, 4)
        setting.queues.move(sequence, SequenceState.RUNNING)
    setting.queues.move(paused, SequenceState.PAUSED)
    assert setting.admission.make_room() is None
    assert (setting.prefix.n_evicted, setting.admission.n_preempted) == (2, 0)
    setting.pool.alloc(setting.pool.n_free + setting.prefix.evict(99))
    assert setting.admission.make_room() is None
    assert (paused.n_past, new.n_past, setting.admission.n_preempted) == (0, 4, 1)
    setting.pool.alloc(setting.pool.n_free)
    assert setting.admission.make_room() is None
    assert (new.state, new.n_past, old.n_past) == (SequenceState.WAITING, 0, 4)
    setting.pool.alloc(setting.pool.n_free)
    assert setting.admission.make_room() is old, "nothing is left to take"


def test_may_start_waits_for_an_older_sequence_with_the_same_prefix() -> None:
    setting = Setting(n_cells=200)
    shared = prompt(1, 3 * WORTH_WAITING)
    leader, follower = setting.add([*shared, 7, 8]), setting.add([*shared, 9])
    other = setting.add(prompt(2, 10))
    for sequence in (leader, follower, other):
        setting.queues.move(sequence, SequenceState.RUNNING)
    setting.compute(leader, 4)
    may_start = setting.admission.may_start
    assert (may_start(leader), may_start(follower), may_start(other)) == (True, False, True)
    setting.compute(leader, len(shared) - 4)
    leader.publish()
    assert may_start(follower), "now the prefix cache holds what they share"


def test_may_start_does_not_wait_for_a_sequence_that_is_gone() -> None:
    setting = Setting(n_cells=200)
    leader, follower = setting.add(prompt(1, 30)), setting.add(prompt(1, 30))
    for sequence in (leader, follower):
        setting.queues.move(sequence, SequenceState.RUNNING)
    setting.compute(leader, 4)
    assert not setting.admission.may_start(follower)
    setting.queues.move(leader, SequenceState.PAUSED)
    assert setting.admission.may_start(follower)
