"""Which sequences run, and which are preempted when cells run out. Policy only.

`fair_share` decides which sequence is admitted next. Among running sequences, `ScheduledSequence.precedence`
counts everywhere: priority, then order of arrival. Therefore no sequence of the highest priority starves: its
oldest running sequence is never preempted and never waits for another one, and the pool holds at least one
sequence of maximum length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from engine.cache.cached_sequence import CachedSequence
from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Match, Node, PrefixCache
from engine.cache.prefix_miss import common_prefix
from engine.cache.state_slots import NO_SLOT
from engine.scheduler.queues import SequenceQueues
from engine.scheduler.sequence import ScheduledSequence, SequenceState

# Cells that must stay free for each running sequence when another is admitted, or it would soon be preempted.
HEADROOM = 8
# Waiting for a prefix that another sequence computes must save so many tokens, or half of what is to compute.
WORTH_WAITING = 8


class Admission:
    """Moves sequences between waiting and running.

    A waiting or paused sequence may still hold cells from when it ran; these are reclaimed first.
    """

    def __init__(self, queues: SequenceQueues, pool: CellPool, prefix: PrefixCache, parallel: int) -> None:
        self.queues = queues
        self.pool = pool
        self.prefix = prefix
        self.parallel = parallel
        self.n_preempted = 0

    def admit(self) -> None:
        """Let waiting sequences run while there are slots and cells, never skipping the one that is next.

        A sequence that is older than the last running one (it was paused) or has a higher priority takes its
        slot.
        """
        queues, running, waiting = self.queues, self.queues.running, self.queues.waiting
        while waiting:
            sequence = queues.fair.next(waiting)
            if len(running) >= self.parallel and not queues.fair.takes_place(sequence, running[-1]):
                return
            while running and not (
                self._fits(sequence) and self._has_slot(sequence) and self._has_window(sequence)
            ):
                if self._reclaim_idle(sequence):
                    continue
                if running[-1].request.priority <= sequence.request.priority:
                    return
                self._preempt_last()
            if len(running) >= self.parallel:  # the last one continues later, without recomputation
                queues.move(running[-1], SequenceState.WAITING)
            queues.move(sequence, SequenceState.RUNNING)

    def make_room(self) -> ScheduledSequence | None:
        """Free one cell for every running sequence, so that each of them can decode.

        Evicts cached prefixes first, then takes the cells of idle sequences, then preempts the newest running
        one of the lowest priority. Returns a sequence that cannot continue even alone, because the cells are
        held outside this scheduler.
        """
        pool, running = self.pool, self.queues.running
        while pool.n_ready < len(running):
            if self.prefix.evict(len(running) - pool.n_free) or self._reclaim_idle(None):
                continue
            if len(running) == 1:
                return running[0]
            self._preempt_last()
        return None

    def may_start(self, sequence: ScheduledSequence) -> bool:
        """Whether a sequence without cells should begin now.

        No, while one of higher precedence computes a longer part of the same prefix than the prefix cache
        has: the sequence then takes that from the cache instead of computing it a second time.
        """
        if sequence.prefix is None:
            return True
        leader = sequence.leader
        if leader is not None:
            if (
                leader.state is SequenceState.RUNNING
                and leader.n_pending > 1
                and leader.n_past < sequence.leader_n
            ):
                return False
            sequence.leader = None
        return not self._find_leader(sequence, self._match(sequence).n)

    def check(self, others: Iterable[CachedSequence] = ()) -> None:
        """Raises AssertionError unless each cell has exactly one owner and all locks are right."""
        check_cells(self.pool, self.prefix, (*self.queues, *others))
        assert len(self.queues.running) <= self.parallel

    def _match(self, sequence: ScheduledSequence) -> Match:
        """The cached prefix of a sequence without cells."""
        return self.prefix.match(sequence.tokens, len(sequence.tokens) - 1, sequence.next_variant)

    def _find_leader(self, sequence: ScheduledSequence, n_known: int) -> bool:
        """Find the sequence of higher precedence in prefill that shares the longest prefix with this one."""
        limit = len(sequence.tokens) - 1
        best = n_known
        for other in self.queues.running:
            if other.precedence >= sequence.precedence:
                break
            if other.prefix is None or other.n_pending <= 1 or other.n_past >= other.n_prompt:
                continue
            if other.next_variant != sequence.next_variant:
                continue
            shared = min(common_prefix(other.tokens, sequence.tokens), other.n_prompt, limit)
            gain = shared - n_known
            if shared > max(best, other.n_past) and (gain >= WORTH_WAITING or 2 * gain >= limit - n_known):
                sequence.leader, sequence.leader_n = other, shared
                best = shared
        if best > n_known and sequence.leader is not None and self.pool.has_checkpoints:
            sequence.leader.stops.add(best)  # one can go on only where a checkpoint is
        return best > n_known

    def _fits(self, sequence: ScheduledSequence) -> bool:
        """Whether the tokens that the sequence has to compute, and some growth of all, fit beside the running
        ones.
        """
        room = self.pool.n_free + self.prefix.n_evictable - _growth(sequence)
        for other in self.queues.running:
            room -= other.n_pending + _growth(other)
            if other.leader is not None and not other.n_past:
                room += other.leader_n
        need = sequence.n_pending
        if need <= room:
            return True
        if room <= 0 or sequence.n_past or sequence.prefix is None:
            return False
        # What is cached need not be computed, but can then no longer be evicted to make room.
        match = self._match(sequence)
        if need - match.n + match.n_unlocked <= room:
            return True
        sequence.leader = None
        return self._find_leader(sequence, match.n) and need - sequence.leader_n + match.n_unlocked <= room

    def _has_slot(self, sequence: ScheduledSequence) -> bool:
        """Whether there is a slot for its recurrent state beside the running ones, if it needs one."""
        states = self.pool.states
        if states is None or sequence.slot != NO_SLOT:
            return True
        return states.n_available > sum(other.slot == NO_SLOT for other in self.queues.running)

    def _has_window(self, sequence: ScheduledSequence) -> bool:
        """Whether the windows of all sequences can grow to their full length, if the model has windows."""
        windows = self.pool.windows
        if windows is None:
            return True
        room = windows.n_available
        for other in (sequence, *self.queues.running):
            held = other.rows.end - other.rows.first
            room -= max(min(windows.most_held, other.n_end) - held, 0)
        return room >= 0

    def without_slot(self) -> ScheduledSequence | None:
        """A running sequence that can never begin, since others outside own all slots for recurrent states.

        One that runs beside others waits until these have ended.
        """
        states, running = self.pool.states, self.queues.running
        if states is None or states.n_available or self._reclaim_idle(None):
            return None
        for sequence in [each for each in reversed(running) if each.slot == NO_SLOT]:
            if len(running) == 1:
                return sequence
            self.queues.move(sequence, SequenceState.WAITING)
        return None

    def _reclaim_idle(self, wanting: ScheduledSequence | None) -> bool:
        """Take the cells of the last paused, else waiting, sequence that has any."""
        for idle in (self.queues.paused, self.queues.waiting):
            for sequence in reversed(idle):
                if (sequence.n_past or sequence.slot != NO_SLOT) and sequence is not wanting:
                    self._preempt(sequence)
                    return True
        return False

    def _preempt_last(self) -> None:
        """Make the running sequence of the lowest precedence wait, without its cells."""
        last = self.queues.running[-1]
        self._preempt(last)
        self.queues.move(last, SequenceState.WAITING)

    def _preempt(self, sequence: ScheduledSequence) -> None:
        """Take a sequence's cells. Their contents stay cached as long as there is room."""
        sequence.release()
        sequence.leader = None
        self.n_preempted += 1


def _growth(sequence: ScheduledSequence) -> int:
    """Cells to reserve for the tokens that a sequence will generate soon."""
    return min(HEADROOM, sequence.n_end - len(sequence.tokens))


def check_cells(pool: CellPool, prefix: PrefixCache, sequences: Collection[CachedSequence]) -> None:
    """Raises AssertionError unless each cell has exactly one owner and all locks are right.

    sequences: all that use the pool.
    """
    pool.check()
    prefix.check()
    if pool.states is not None:
        slots = [sequence.slot for sequence in sequences if sequence.slot != NO_SLOT]
        pool.states.check(slots, [n for n in prefix.nodes() if n.checkpoint != NO_SLOT])
    if pool.windows is not None:
        pool.windows.check(
            [sequence.rows.held(sequence.cells) for sequence in sequences],
            prefix.nodes(),
            [pool.is_free(cell) for cell in range(pool.n_cells)],
        )
    owned: list[int] = []
    locks: Counter[Node] = Counter()
    for node in prefix.nodes():
        owned.extend(node.cells)
    for sequence in sequences:
        assert len(sequence.cells) == sequence.n_past >= sequence.n_shared
        assert sequence.rows.can_resume(sequence.n_past)
        owned.extend(sequence.cells[sequence.n_shared :])
        path: list[int] = []
        node_or_none = sequence.node
        while node_or_none is not None and node_or_none.parent is not None:
            locks[node_or_none] += 1
            path[:0] = node_or_none.cells
            node_or_none = node_or_none.parent
        assert path == sequence.cells[: sequence.n_shared].tolist()
    assert all(node.lock == locks[node] for node in prefix.nodes())
    assert len(set(owned)) == len(owned) == pool.n_cells - pool.n_free
    assert not any(pool.is_free(cell) for cell in owned)
