"""Tasks whose result has not arrived yet. A task survives an engine crash: it is run again."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.tasks.types import AnyTask, Embedded, PromptLogprobs, TaskUpdate
from server.worker.errors import TaskFailed


class PendingTask:
    """A task and the future of its result. `sent` and `crashes` are as in `Stream`."""

    def __init__(self, id: str, task: AnyTask) -> None:
        self.id, self.task = id, task
        self.sent = False
        self.crashes = 0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._chunks: dict[int, bytearray] = {}  # by input

    def restart(self) -> None:
        """The engine has died: the next one starts the task from the beginning."""
        self.sent = False
        self._chunks.clear()

    def update(self, update: TaskUpdate) -> None:
        """Add what has arrived; the last update resolves the future."""
        self.crashes = 0
        for chunk in update.chunks:
            self._chunks.setdefault(chunk.input, bytearray()).extend(chunk.data)
        if self.future.done():
            return
        if update.failure is not None:
            self.fail(TaskFailed(update.failure.kind, update.failure.text))
        elif update.result is not None:
            result: Any = update.result
            if isinstance(result, Embedded):
                result = Embedded([bytes(self._chunks[i]) for i in range(len(self._chunks))], result.width)
            elif isinstance(result, PromptLogprobs):
                result = PromptLogprobs(bytes(self._chunks.get(0, b"")), result.width)
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
