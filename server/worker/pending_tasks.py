"""Work of an engine that is no stream: one order, one result, whatever happens to the engine meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine.tasks.types import Embedded, Scored, Task, TaskUpdate

if TYPE_CHECKING:
    from collections.abc import Iterator


class TaskFailed(Exception):
    """The engine could not do it. `kind` is the class of its error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class PendingTask:
    """One order on its way. `sent` and `strikes` are as in `server.worker.stream.Stream`."""

    def __init__(self, id: str, work: Task[Any]) -> None:
        self.id, self.work = id, work
        self.sent = False
        self.strikes = 0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._parts: dict[int, bytearray] = {}

    def restart(self) -> None:
        """The engine died: what it told is told again by the next one."""
        self.sent = False
        self._parts.clear()

    def take(self, news: TaskUpdate) -> None:
        """Keep what came."""
        self.strikes = 0
        for piece in news.pieces:
            self._parts.setdefault(piece.input, bytearray()).extend(piece.data)
        if self.future.done():
            return
        if news.failure is not None:
            self.fail(TaskFailed(news.failure.kind, news.failure.text))
        elif news.result is not None:
            result: Any = news.result
            if isinstance(result, Embedded):
                result = Embedded([bytes(self._parts[i]) for i in range(len(self._parts))], result.width)
            elif isinstance(result, Scored):
                result = Scored(bytes(self._parts.get(0, b"")), result.width)
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class PendingTasks:
    """The unfinished ones of an engine, oldest first."""

    def __init__(self) -> None:
        self._calls: dict[str, PendingTask] = {}
        self._n = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[PendingTask]:
        return iter(list(self._calls.values()))

    def add(self, work: Task[Any]) -> PendingTask:
        self._n += 1
        call = PendingTask(f"task-{self._n}", work)
        self._calls[call.id] = call
        return call

    def get(self, id: str) -> PendingTask | None:
        return self._calls.get(id)

    def remove(self, call: PendingTask) -> None:
        self._calls.pop(call.id, None)
