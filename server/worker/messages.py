"""The messages between the server and an engine process, and their framing.

A frame is a length (u32, little-endian) and that many bytes of msgpack. Both ends run the same version, so
there is no version negotiation. A frame that cannot be decoded is a bug, and ends the connection. A `Request`
is itself a message.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from engine.config import ModelParameters
from engine.tasks.types import AnyTask, TaskUpdate
from engine.types import EngineStats, Request, StepOutput

MAX_FRAME = 64 << 20  # bytes; a prompt of a million tokens takes 5 MiB
_HEAD = 4  # bytes of the length


class ProtocolError(Exception):
    """Invalid or oversized frame, received or about to be sent."""


class WireMessage(msgspec.Struct, array_like=True, tag=True):
    """An array [class name, field, …]."""


# --- server → engine process


class LoadModel(WireMessage):
    """The first message."""

    path: str
    params: ModelParameters
    heartbeat_s: float = 1.0
    log_level: str = "info"


class SubmitTask(WireMessage):
    """Answered by `TaskUpdates`, the last of which has a result or an error, unless the task is cancelled."""

    id: str
    task: AnyTask


class Cancel(WireMessage):
    """End a request or task."""

    id: str


class Pause(WireMessage):
    """The client reads too slowly: do not schedule this request until Resume."""

    id: str


class Resume(WireMessage):
    id: str


class Shutdown(WireMessage):
    """Exit now; running requests are abandoned."""


# --- engine process → server


class LoadStatus(WireMessage):
    """Progress of loading: the fraction done, 0 to 1, and the current stage."""

    fraction: float
    text: str


class Ready(WireMessage):
    """Loaded. `info` is the description of the model."""

    info: dict[str, Any]


class LoadFailure(WireMessage):
    """Loading failed: class name and one-line text of the error."""

    kind: str
    message: str


class StepUpdate(WireMessage):
    """The outputs of one step for all requests, and from time to time the counters."""

    outputs: list[StepOutput]
    stats: EngineStats | None = None


class TaskUpdates(WireMessage):
    """The updates of one step for all tasks. A large result is split over several of these."""

    updates: list[TaskUpdate]


class Heartbeat(WireMessage):
    """Sent every `LoadModel.heartbeat_s` by a separate thread, also during loading and during a step.

    busy_s: how long the current operation has run; 0: the engine waits for messages. quiet_s: time since the
    process last used the processor or read from a disk. unread_s: time since it last read from a disk. rows:
    of the current or last batch. longest_s, most_rows: the longest operation since the first batch, and the
    largest batch that has ended; 0 before the first.
    """

    busy_s: float
    quiet_s: float
    longest_s: float
    unread_s: float = 0.0
    rows: int = 0
    most_rows: int = 0


class Fatal(WireMessage):
    """The engine cannot continue; the process exits after this."""

    message: str


ToEngine = LoadModel | Request | SubmitTask | Cancel | Pause | Resume | Shutdown
ToServer = LoadStatus | Ready | LoadFailure | StepUpdate | TaskUpdates | Heartbeat | Fatal

_encoder = msgspec.msgpack.Encoder()


def encode(message: ToEngine | ToServer) -> bytearray:
    """The message as a frame. ProtocolError if it is larger than MAX_FRAME."""
    frame = bytearray(_HEAD)
    _encoder.encode_into(message, frame, _HEAD)
    size = len(frame) - _HEAD
    if size > MAX_FRAME:
        raise ProtocolError(f"a message of {size} bytes is larger than the limit of {MAX_FRAME}")
    frame[:_HEAD] = size.to_bytes(_HEAD, "little")
    return frame


T = TypeVar("T")


class FrameReader(Generic[T]):
    """Decodes a byte stream into messages. Memory is bounded by one frame plus one read."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decode = decoder.decode
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """The messages that `data` completes. Raises ProtocolError for an invalid frame."""
        if self._pending:
            self._pending += data
            whole: bytes | bytearray = self._pending
        else:
            whole = data
        messages: list[T] = []
        start, end = 0, len(whole)
        view = memoryview(whole)
        try:
            while end - start >= _HEAD:
                size = int.from_bytes(view[start : start + _HEAD], "little")
                if size > MAX_FRAME:
                    raise ProtocolError(f"the length of a frame is {size} bytes; the limit is {MAX_FRAME}")
                if end - start - _HEAD < size:
                    break
                messages.append(self._decode(view[start + _HEAD : start + _HEAD + size]))
                start += _HEAD + size
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(f"cannot decode a frame: {error}") from error
        finally:
            view.release()
        if whole is self._pending:
            del self._pending[:start]
        else:
            self._pending += data[start:]
        return messages


def engine_reader() -> FrameReader[ToEngine]:
    """The engine process's reader, which decodes messages from the server."""
    return FrameReader(msgspec.msgpack.Decoder(ToEngine))


def server_reader() -> FrameReader[ToServer]:
    """The server's reader, which decodes messages from an engine process."""
    return FrameReader(msgspec.msgpack.Decoder(ToServer))
