"""Which sessions run, wait or are parked, and who gives way when cells run out. Policy only.

Order of arrival (`Session.seq`) is the order of precedence everywhere. Because of it nothing starves: the
oldest session is never preempted and never waits for another one, and the pool holds one whole session.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter

from engine.cache.cell_pool import CellPool
from engine.cache.prefix_cache import Match, Node, PrefixIndex, common_prefix
from engine.scheduler.sequence import CachedSequence, Session

# A session is admitted only if so many cells per running session stay free, or it would soon be preempted.
HEADROOM = 8
# Waiting for a prefix that another session computes must save so many tokens, or half of what is to compute.
WORTH_WAITING = 8

_arrival = attrgetter("seq")


class Admission:
    """The three lists of sessions, each in order of arrival.

    running: scheduled in every step. waiting: want to run. parked: paused by their client. A waiting or
    parked session may still hold cells from when it ran; these are the first to be reclaimed.
    """

    def __init__(self, pool: CellPool, index: PrefixIndex, parallel: int) -> None:
        self.pool = pool
        self.index = index
        self.parallel = parallel
        self.running: list[Session] = []
        self.waiting: list[Session] = []
        self.parked: list[Session] = []
        self.n_preempted = 0

    def move(self, session: Session, to: list[Session] | None) -> None:
        """Put a session into another list (None: into none), at its place by arrival."""
        if session.queue is not None:
            session.queue.remove(session)
        session.queue = to
        if to is not None:
            insort(to, session, key=_arrival)

    def admit(self) -> None:
        """Let waiting sessions run, in order of arrival, while there are slots and cells.

        A session older than a running one (it was paused) takes the slot of the newest one.
        """
        running, waiting = self.running, self.waiting
        while waiting:
            session = waiting[0]
            full = len(running) >= self.parallel
            if full and running[-1].seq < session.seq:
                return
            while running and not self._fits(session):
                if not self._reclaim_idle(session):
                    return
            if full:
                self.move(running[-1], waiting)  # with its cells: it goes on later as if nothing happened
            self.move(session, running)

    def make_room(self) -> Session | None:
        """Free one cell for every running session, so that each of them can go on.

        Evicts cached prefixes first, then takes the cells of idle sessions, then preempts the newest
        running one. Returns a session that cannot go on even alone, since others than this scheduler's
        sessions hold the cells.
        """
        pool, running = self.pool, self.running
        while (lack := len(running) - pool.n_free) > 0:
            if self.index.evict(lack) or self._reclaim_idle(None):
                continue
            if len(running) == 1:
                return running[0]
            newest = running[-1]
            self._preempt(newest)
            self.move(newest, self.waiting)
        return None

    def may_start(self, session: Session) -> bool:
        """Whether a session without cells should begin now.

        Not while an older session computes a longer part of the same beginning than the index holds: it
        then takes that from the index instead of computing it a second time.
        """
        if session.index is None:
            return True
        leader = session.leader
        if leader is not None:
            if leader.queue is self.running and leader.n_pending > 1 and leader.n_past < session.leader_n:
                return False
            session.leader = None
        return not self._find_leader(session, self._match(session).n)

    def check(self, others: Iterable[CachedSequence] = ()) -> None:
        """Raise AssertionError if a cell has not exactly one owner, or a lock is missing or left over."""
        self.pool.check()
        self.index.check()
        owned: list[int] = []
        locks: Counter[Node] = Counter()
        for node in self.index.nodes():
            owned.extend(node.cells)
        for sequence in (*self.running, *self.waiting, *self.parked, *others):
            assert len(sequence.cells) == sequence.n_past >= sequence.n_shared
            owned.extend(sequence.cells[sequence.n_shared :])
            path: list[int] = []
            node_or_none = sequence.node
            while node_or_none is not None and node_or_none.parent is not None:
                locks[node_or_none] += 1
                path[:0] = node_or_none.cells
                node_or_none = node_or_none.parent
            assert path == sequence.cells[: sequence.n_shared].tolist()
        assert all(node.lock == locks[node] for node in self.index.nodes())
        assert len(set(owned)) == len(owned) == self.pool.n_cells - self.pool.n_free
        assert not any(self.pool.is_free(cell) for cell in owned)
        assert len(self.running) <= self.parallel

    def _match(self, session: Session) -> Match:
        """What the index holds for a session that is to begin."""
        return self.index.match(session.tokens, len(session.tokens) - 1, session.wants_long)

    def _find_leader(self, session: Session, n_known: int) -> bool:
        """Look for the older session in prefill that shares the most with this one."""
        limit = len(session.tokens) - 1
        best = n_known
        for other in self.running:
            if other.seq >= session.seq:
                break
            if other.index is None or other.n_pending <= 1 or other.n_past >= other.n_prompt:
                continue
            if other.wants_long != session.wants_long:
                continue
            shared = min(common_prefix(other.tokens, session.tokens), other.n_prompt, limit)
            gain = shared - n_known
            if shared > max(best, other.n_past) and (gain >= WORTH_WAITING or 2 * gain >= limit - n_known):
                session.leader, session.leader_n = other, shared
                best = shared
        return best > n_known

    def _fits(self, session: Session) -> bool:
        """Whether what the session has to compute, and some growth of all, fits beside the running ones."""
        room = self.pool.n_free + self.index.n_evictable - _growth(session)
        for other in self.running:
            room -= other.n_pending + _growth(other)
            if other.leader is not None and not other.n_past:
                room += other.leader_n
        need = session.n_pending
        if need <= room:
            return True
        if room <= 0 or session.n_past or session.index is None:
            return False
        # What is cached need not be computed, but can then no longer be evicted to make room.
        match = self._match(session)
        if need - match.n + match.n_unlocked <= room:
            return True
        session.leader = None
        return self._find_leader(session, match.n) and need - session.leader_n + match.n_unlocked <= room

    def _reclaim_idle(self, wanting: Session | None) -> bool:
        """Take the cells of the newest parked, else waiting, session that has any."""
        for idle in (self.parked, self.waiting):
            for session in reversed(idle):
                if session.n_past and session is not wanting:
                    self._preempt(session)
                    return True
        return False

    def _preempt(self, session: Session) -> None:
        """Take a session's cells. What they hold stays cached for as long as there is room."""
        session.release()
        session.leader = None
        self.n_preempted += 1


def _growth(session: Session) -> int:
    """Cells to set aside for the tokens that a session will generate soon."""
    return min(HEADROOM, session.n_end - len(session.tokens))
