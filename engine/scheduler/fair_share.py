"""Which waiting sequence runs next, and how much of a step each prompt gets. Policy only.

Virtual token counters: each client has one, which grows by the tokens computed for it, divided by its weight;
the client with the lowest counter is next (Sheng et al., "Fairness in Serving Large Language Models", OSDI
2024, arXiv:2401.00588, algorithm 2). So clients that have requests waiting get tokens in proportion to their
weights. An answer is counted by its expected length when its sequence is admitted, and corrected as its real
length shows; otherwise many could be admitted at the price of their prompts. Tokens from the prefix cache
cost nothing. With one client all this is the order of arrival.

Priorities come before that, as in vLLM: a lower number is served first, and preempts a higher one. Each
priority has its own counters, so that a client that waits in one gets no credit for it in another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby

from engine.scheduler.sequence import ScheduledSequence

FIRST_LENGTH = 256  # expected of a client's answer, before one has ended
NEW_LENGTH = 0.25  # weight of a new answer in the running mean of their lengths


class _Client:
    """counter: its virtual time, in tokens of weight 1. n_waiting: sequences that wait to be admitted."""

    __slots__ = ("counter", "length", "n_waiting", "weight")

    def __init__(self) -> None:
        self.counter, self.length, self.n_waiting, self.weight = 0.0, float(FIRST_LENGTH), 0, 1


class _Level:
    """The clients of one priority. n_sequences: unfinished ones. last: that had none waiting any more."""

    __slots__ = ("clients", "last", "n_sequences")

    def __init__(self) -> None:
        self.clients: dict[str, _Client] = defaultdict(_Client)
        self.last = _Client()
        self.n_sequences = 0


class FairShare:
    """The counters of each priority, kept as long as it has sequences; afterwards all clients are equal
    again.
    """

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = defaultdict(_Level)

    def _level(self, sequence: ScheduledSequence) -> _Level:
        return self._levels[sequence.request.priority]

    def _client(self, sequence: ScheduledSequence) -> _Client:
        return self._levels[sequence.request.priority].clients[sequence.request.client]

    def add(self, sequence: ScheduledSequence) -> None:
        """A sequence was created."""
        self._level(sequence).n_sequences += 1

    def enter(self, sequence: ScheduledSequence) -> None:
        """A sequence begins to wait.

        A client gets no credit for time in which none of its sequences waited.
        """
        level, client = self._level(sequence), self._client(sequence)
        client.weight = sequence.request.weight
        if not client.n_waiting:
            waiting = (other.counter for other in level.clients.values() if other.n_waiting)
            client.counter = max(client.counter, min(waiting, default=level.last.counter))
        client.n_waiting += 1

    def leave(self, sequence: ScheduledSequence) -> None:
        """A sequence no longer waits."""
        client = self._client(sequence)
        client.n_waiting -= 1
        if not client.n_waiting:
            self._level(sequence).last = client

    def next(self, waiting: Sequence[ScheduledSequence]) -> ScheduledSequence:
        """Which of these sequences, given by precedence, to admit.

        Within the first one's priority: one that has run before, else the oldest of the client with the
        lowest counter.
        """
        first = waiting[0]
        n_clients = sum(client.n_waiting > 0 for client in self._level(first).clients.values())
        if n_clients == 1:
            return first
        oldest: dict[str, ScheduledSequence] = {}
        for sequence in waiting:
            if sequence.request.priority > first.request.priority or len(oldest) == n_clients:
                break
            oldest.setdefault(sequence.request.client, sequence)
        return min(oldest.values(), key=self._turn)

    def _turn(self, sequence: ScheduledSequence) -> tuple[float, int]:
        return -1.0 if sequence.charged else self._client(sequence).counter, sequence.arrival

    @staticmethod
    def takes_place(sequence: ScheduledSequence, running: ScheduledSequence) -> bool:
        """Whether a waiting sequence takes the place of a running one.

        Within a priority only an older one does, and of other clients only one that has run before.
        """
        if sequence.request.priority != running.request.priority:
            return sequence.request.priority < running.request.priority
        has_turn = sequence.charged or sequence.request.client == running.request.client
        return bool(has_turn) and sequence.arrival < running.arrival

    def admit(self, sequence: ScheduledSequence) -> None:
        """A sequence is admitted."""
        if not sequence.charged:
            length = int(self._client(sequence).length)
            sequence.n_expected = min(length, sequence.n_end - sequence.n_prompt)
            self.charge(sequence)

    def charge(self, sequence: ScheduledSequence) -> None:
        """Count its cost so far, or its expected cost."""
        n_generated, n_expected = sequence.n_generated, sequence.n_expected
        if n_generated > n_expected or sequence.first_token_at is None:  # else it is counted already
            self._charge(sequence, max(n_generated, n_expected))

    def finish(self, sequence: ScheduledSequence) -> None:
        """A sequence has ended. What it was overcharged is given back."""
        if sequence.charged:
            n_generated, client = sequence.n_generated, self._client(sequence)
            client.length += NEW_LENGTH * (n_generated - client.length)
            self._charge(sequence, n_generated)
        level = self._level(sequence)
        level.n_sequences -= 1
        if not level.n_sequences:
            del self._levels[sequence.request.priority]

    def _charge(self, sequence: ScheduledSequence, n_generated: int) -> None:
        cost = sequence.n_prompt - (sequence.cached_n or 0) + n_generated
        # By its own weight: that of the client may have changed since the first charge.
        self._client(sequence).counter += (cost - sequence.charged) / sequence.request.weight
        sequence.charged = cost

    def parts(self, prefill: Sequence[ScheduledSequence]) -> Iterator[tuple[list[ScheduledSequence], float]]:
        """The prompts of a step, given by precedence, grouped by client, each with its share of the remaining
        tokens.

        The highest priority gets all tokens if it can use them. Among its clients they are divided by weight;
        what one does not need goes to those who want more (max-min fairness), who come last.
        """
        for _, sequences in groupby(prefill, key=lambda sequence: sequence.request.priority):
            by_client: dict[str, list[ScheduledSequence]] = {}
            for sequence in sequences:
                by_client.setdefault(sequence.request.client, []).append(sequence)
            groups = [(self._client(group[0]).weight, group) for group in by_client.values()]
            groups.sort(key=lambda group: sum(map(_demand, group[1])) / group[0])
            weight_left = sum(weight for weight, _ in groups)
            for weight, group in groups:
                yield group, weight / weight_left
                weight_left -= weight


def _demand(sequence: ScheduledSequence) -> int:
    """Tokens of a prompt that the next step could compute; none while another sequence computes them."""
    return 0 if sequence.leader is not None else min(sequence.n_pending, sequence.n_batch)
