"""The engine of an ingress: sends each request to one of the replicas, and to another if that one is lost.

It is the counterpart of `server.worker.client.EngineClient`. A request that was running on a replica that
died continues elsewhere with the tokens that its client already has, as after an engine crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from engine.tasks.types import EraseSlot, RestoreSlot, SaveSlot, Task
from engine.tokenizer import load_tokenizer
from engine.types import CACHE_ROOM, EngineStats, Request
from server.replicas import messages
from server.replicas.routing import Placements, prefix_keys
from server.worker import messages as wire
from server.worker.errors import EngineUnavailable, LoadFailed, QueueFull, TaskFailed
from server.worker.requests.in_flight import InFlight
from server.worker.requests.slots import Slots
from server.worker.requests.stream import RequestInfo, Stream
from server.worker.supervision.process import StartedProcess

log = logging.getLogger("ggserve.engine")
R = TypeVar("R")

TICK_S = 0.25
MAX_LOSSES = 5  # of the replica of one request, without a token in between
FIRST_DELAY_S = 0.25  # before a request is sent again the second time in a row; doubles each time
RECENT_S = 300.0  # a replica without a result for so long may be no more
LOST = f"the replica that computed this request was lost {MAX_LOSSES} times"


class ReplicaLost(Exception):
    """The replica or its machine is gone or unreachable."""


class Replicas(Protocol):
    """All replicas of the model. The frames are those of `messages`.

    Calls are routed by `prefix`, and by how many of its tokens each replica has cached (`cached`).
    """

    def generate(self, call: bytes, prefix: bytes, cached: dict[str, int]) -> AsyncIterator[bytes]: ...
    async def run(self, call: bytes) -> bytes: ...
    async def info(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class IngressLimits:
    """parallel: requests that run at the same time, with the maximum number of replicas.

    max_queue: further requests that may wait.
    """

    replicas: int
    parallel: int
    max_queue: int
    send_timeout_s: float


class ReplicatedEngine:
    """One per ingress. Members as in `EngineClient`. load_tokenizer: loads it from the model file on this
    machine.
    """

    def __init__(
        self,
        name: str,
        path: str,
        replicas: Replicas,
        limits: IngressLimits,
        load_tokenizer: Callable[[str], Any] = load_tokenizer,
    ) -> None:
        self.name = name
        self.state, self.detail, self.progress = "loading", "waiting for a replica", 0.0
        self.stalled = self.blocked = self.replaced = False
        self.restarts = 0  # of requests whose replica was lost
        self.info: dict[str, Any] | None = None
        self.tokenizer: Any = None
        self._path, self._replicas, self._limits = path, replicas, limits
        self._load_tokenizer = load_tokenizer
        self._in_flight = InFlight(name, self, parallel=limits.parallel, send_timeout_s=limits.send_timeout_s)
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._losses: Counter[str] = Counter()
        self._stats: dict[str, tuple[float, EngineStats]] = {}  # when they came, by replica
        self._placements = Placements(2 * limits.replicas)
        self._n_tasks = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def n_ctx(self) -> int:
        return int((self.info or {}).get("n_ctx") or 0)

    @property
    def max_batch_size(self) -> int:
        return int((self.info or {}).get("max_batch_tokens") or 0)

    @property
    def slots(self) -> Slots:
        return self._in_flight.slots

    @property
    def stats(self) -> EngineStats:
        """Summed over the replicas, each as of the last request of this ingress that it finished.

        Counters of replicas that are gone are included, their cells are not.
        """
        total = EngineStats()
        now = time.monotonic()
        for at, stats in self._stats.values():
            _add(total, stats, with_cells=now - at < RECENT_S)
        total.running = min(len(self._in_flight), self._limits.parallel)
        total.waiting = len(self._in_flight) - total.running
        return total

    def requests(self) -> Iterable[RequestInfo]:
        return [stream.info(self.name) for stream in self._in_flight.streams]

    # --- requests and tasks

    def ensure_room(self, n: int = 1) -> None:
        waiting = len(self._in_flight) + self._n_tasks - self._limits.parallel
        if waiting + n > self._limits.max_queue:
            delay_s = self._in_flight.mean_duration_s * n / self._limits.parallel
            raise QueueFull(max(waiting, 0), min(max(delay_s, 1.0), 120.0))

    def generate(self, request: Request) -> Stream:
        self._ensure_admits()
        return self._in_flight.submit(request)

    async def run(self, task: Task[R]) -> R:
        self._ensure_admits()
        if isinstance(task, SaveSlot | RestoreSlot | EraseSlot):
            raise TaskFailed("ConfigError", "slots belong to one engine; there are replicas here")
        self._n_tasks += 1
        try:
            end = await self._run(messages.encode(task))
        finally:
            self._n_tasks -= 1
        if end.failure is not None:
            raise TaskFailed(end.failure.kind, end.failure.text)
        return end.result  # type: ignore[return-value]

    async def _run(self, call: bytes) -> messages.TaskEnd:
        for n in range(MAX_LOSSES):
            try:
                return messages.decode_task_end(await self._replicas.run(call))
            except ReplicaLost as error:
                self.restarts += 1
                log.warning("[%s] the replica of a task was lost: %s", self.name, error)
                await _pause(n)
        raise TaskFailed("EngineDied", LOST)

    def cancel(self, id: str) -> bool:
        return self._in_flight.cancel(id)

    def _ensure_admits(self) -> None:
        if self.state != "ready":
            reason = "is still loading" if self.state == "loading" else "has failed or is shutting down"
            raise EngineUnavailable(f"{self.name} {reason}")
        self.ensure_room()

    # --- start and stop

    def spawn(self, started: StartedProcess | None = None) -> None:
        """Does nothing: there is no process to start here."""

    async def start(self) -> None:
        """Wait for the first replica. Raises LoadFailed if the tokenizer cannot be loaded."""
        try:
            self.tokenizer = await asyncio.to_thread(self._load_tokenizer, self._path)
        except Exception as error:
            self.state, self.detail = "failed", str(error)
            raise LoadFailed(type(error).__name__, str(error)) from error
        while self.info is None:
            try:
                self.info = await self._replicas.info()
            except ReplicaLost as error:
                log.warning("[%s] a replica was lost: %s", self.name, error)
                await asyncio.sleep(TICK_S)
        self._watcher = asyncio.create_task(self._watch())
        self.state, self.detail, self.progress = "ready", "ready", 1.0

    async def stop(self, drain_s: float = 0.0) -> None:
        self.state, self.detail = "stopped", "shutting down"
        if drain_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._in_flight.empty.wait(), drain_s)
        self._in_flight.cancel_all(EngineUnavailable("the server is shutting down"))
        ending = [*self._calls.values()]
        if self._watcher is not None:
            ending.append(self._watcher)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def kill(self) -> None:
        """Does nothing: `stop` ends the calls."""

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._in_flight.expire()

    # --- from `InFlight`

    def send(self, message: wire.ToEngine) -> None:
        """Pause and Resume are not forwarded: a request bounds the unread output of a slow reader."""
        match message:
            case Request():
                self._calls[message.id] = asyncio.create_task(self._generate(message))
            case wire.Cancel(id) if id in self._calls:
                self._losses.pop(id, None)
                self._calls.pop(id).cancel()

    async def _generate(self, request: Request) -> None:
        """Receive what a replica computes for a request, until the end or the loss of the replica."""
        id = request.id
        reason, replica = "it ended without a result", ""
        tokens: list[int] = []
        try:
            call, keys = messages.encode_request(request), prefix_keys(request)
            async for frame in self._replicas.generate(call, keys, self._placements.cached(keys)):
                message = messages.decode_outputs(frame)
                if message.replica and not replica:
                    replica = message.replica
                    self._placements.add(replica, keys)
                tokens += [token.id for output in message.outputs for token in output.tokens]
                self._on_outputs(message)
        except ReplicaLost as error:
            reason = str(error)
        except Exception:
            log.exception("[%s] request %s", self.name, id)
            self._in_flight.fail(id, EngineUnavailable("a replica cannot be called"))
        finally:
            if tokens:
                self._placements.add(replica, prefix_keys(request, tokens))
        if id in self._in_flight:
            await self._on_lost(id, reason)
        else:
            self._losses.pop(id, None)
            self._calls.pop(id, None)

    def _on_outputs(self, message: messages.Outputs) -> None:
        for output in message.outputs:
            if output.tokens:
                self._losses.pop(output.id, None)
        if message.stats is not None:
            self._stats[message.replica] = time.monotonic(), message.stats
        self._in_flight.on_outputs(message.outputs)

    async def _on_lost(self, id: str, reason: str) -> None:
        self.restarts += 1
        self._losses[id] += 1
        n = self._losses[id]
        log.warning("[%s] the replica of request %s was lost: %s", self.name, id, reason)
        if n >= MAX_LOSSES:
            self._losses.pop(id)
            self._calls.pop(id, None)
            self._in_flight.fail(id, EngineUnavailable(LOST))
            return
        await _pause(n - 1)
        self._in_flight.send_again(id)


async def _pause(n: int) -> None:
    """The delay before a retry that follows `n` others in a row."""
    if n > 0:
        await asyncio.sleep(FIRST_DELAY_S * 2 ** (n - 1))


def _add(total: EngineStats, stats: EngineStats, with_cells: bool) -> None:
    for field in msgspec.structs.fields(EngineStats):
        name = field.name
        if name == "missed_tokens":
            for reason, n in stats.missed_tokens.items():
                total.missed_tokens[reason] = total.missed_tokens.get(reason, 0) + n
        elif with_cells or name not in CACHE_ROOM:
            setattr(total, name, getattr(total, name) + getattr(stats, name))
