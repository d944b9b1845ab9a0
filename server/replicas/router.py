"""Ray Serve's request router for replicas: by prefix and load (`routing`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import count
from typing import Any

from ray.serve.request_router import RequestRouter

from server.replicas.routing import BLOCK, KEY, RecentBlocks, ReplicaLoad, rank


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # without ray it is Any
    """One per ingress.

    What this ingress has sent comes with each call (`cached`); replicas report the rest.
    """

    def initialize_state(self, parallel: int) -> None:
        """parallel: requests that run at the same time on a replica. Called by Ray Serve."""
        self._parallel = parallel
        self._blocks: defaultdict[Any, RecentBlocks] = defaultdict(RecentBlocks)  # reported, by replica id
        self._reports: dict[Any, bytes] = {}
        self._running: Counter[Any] = Counter()
        self._routed: dict[Any, int] = {}
        self._count = count(1)

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        call = {} if pending_request is None else pending_request.kwargs
        keys, cached = call.get("prefix", b""), call.get("cached", {})
        if pending_request is not None:  # else Ray Serve asks again at once where all are full
            pending_request.routing_context.should_backoff = True
        replicas = {replica.replica_id: replica for replica in candidate_replicas}
        candidates = []
        for id, replica in replicas.items():
            self._read_report(replica)
            running = max(self._running[id], self.replica_queue_len_cache.get(id) or 0)
            matching = max(cached.get(id.unique_id, 0), self._blocks[id].matching(keys))
            candidates.append(ReplicaLoad(id, running, matching, self._routed.get(id, 0)))
        n_tokens = len(keys) // KEY * BLOCK
        return [[replicas[id]] for id in rank(n_tokens, candidates, self._parallel)]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        self._running[replica_id] += 1
        self._routed[replica_id] = next(self._count)

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        self._running[replica_id] -= 1

    def update_replicas(self, replicas: list[Any]) -> None:
        super().update_replicas(replicas)
        ids = {replica.replica_id for replica in replicas}
        for known in (self._blocks, self._reports, self._running, self._routed):
            for id in known.keys() - ids:
                del known[id]

    def _read_report(self, replica: Any) -> None:
        """Read a replica's report on what others have sent to it (`Replica.record_routing_stats`)."""
        report = replica.routing_stats.get("blocks", b"")
        if report and report != self._reports.get(replica.replica_id):
            self._reports[replica.replica_id] = report
            self._blocks[replica.replica_id].add(report)
