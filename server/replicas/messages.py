"""The messages between an ingress and a replica, as msgpack. Both run the same version."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from engine.tasks.types import AnyTask, Task, TaskFailure, TaskResult
from engine.types import EngineStats, Request, StepOutput


class Outputs(msgspec.Struct, array_like=True):
    """Outputs of one request. replica: the one that computes it, in the first and last messages. stats: its
    counters, in the last one.
    """

    outputs: list[StepOutput]
    replica: str = ""
    stats: EngineStats | None = None


class TaskEnd(msgspec.Struct, array_like=True):
    """The result of a task, or why it has none."""

    result: TaskResult | None = None
    failure: TaskFailure | None = None


_requests = msgspec.msgpack.Decoder(Request)
_outputs = msgspec.msgpack.Decoder(Outputs)
_tasks = msgspec.msgpack.Decoder(AnyTask)
_task_ends = msgspec.msgpack.Decoder(TaskEnd)


def encode(message: Outputs | TaskEnd | Task[Any]) -> bytes:
    return msgspec.msgpack.encode(message)


def encode_request(request: Request) -> bytes:
    """The deadline is sent as the remaining time, since machines do not share a monotonic clock."""
    left_ms = None if request.deadline_ms is None else request.deadline_ms - time.monotonic() * 1000
    return msgspec.msgpack.encode(msgspec.structs.replace(request, deadline_ms=left_ms, slot=None))


def decode_request(data: bytes) -> Request:
    request: Request = _requests.decode(data)
    if request.deadline_ms is not None:
        request.deadline_ms += time.monotonic() * 1000
    return request


def decode_outputs(data: bytes) -> Outputs:
    return _outputs.decode(data)


def decode_task(data: bytes) -> Any:
    return _tasks.decode(data)


def decode_task_end(data: bytes) -> TaskEnd:
    return _task_ends.decode(data)
