"""The errors that the server's side of an engine raises."""

from __future__ import annotations


class QueueFull(Exception):
    """Too many requests are waiting. `retry_after_s` estimates when there will be room again."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests are already waiting; try again in {retry_after_s:.0f} s")
        self.waiting, self.retry_after_s = waiting, retry_after_s


class EngineUnavailable(Exception):
    """The engine is loading, is stopped, or has failed permanently; the text says which."""


class LoadFailed(Exception):
    """The model could not be loaded. `kind` is the class name of the engine's error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TaskFailed(Exception):
    """The engine could not run a task. `kind` is the class name of its error."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
