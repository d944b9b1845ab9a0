"""What the server and an engine process say to each other, and how it is framed.

A frame is a length (u32, little-endian) and that many bytes of msgpack. Both ends run the same version, so
there is no negotiation; a frame that cannot be read is a bug or a broken peer, and ends the connection.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from engine.config import ModelParameters
from engine.tasks.types import AnyTask, TaskUpdate
from engine.types import EngineStats, Request, StepOutput

MAX_FRAME = 64 << 20  # bytes; a prompt of a million tokens takes 5 MiB
_HEAD = 4


class ProtocolError(Exception):
    """The other side sent what is no frame, or we were about to."""


class _Message(msgspec.Struct, array_like=True, tag=True):
    pass


# --- server → engine process


class Load(_Message):
    """The first frame: what to load."""

    path: str
    params: ModelParameters


class SubmitRequest(_Message):
    request: Request


class SubmitTask(_Message):
    """Work that is no stream. Its end comes as `TaskUpdates`, unless it is cancelled."""

    id: str
    work: AnyTask


class Cancel(_Message):
    """End a request or a task."""

    id: str


class Pause(_Message):
    """The client reads too slowly: compute nothing for this request until Resume."""

    id: str


class Resume(_Message):
    id: str


class Ping(_Message):
    """Answered between two steps."""

    n: int


class Shutdown(_Message):
    """Leave at once; what still runs is abandoned."""


# --- engine process → server


class Progress(_Message):
    """Loading: how much is done, 0 to 1, and with what."""

    fraction: float
    text: str


class Ready(_Message):
    """Loaded. `info` is what the model says of itself."""

    info: dict[str, Any]


class LoadFailed(_Message):
    """Could not load: the error's class and its one-line text."""

    kind: str
    message: str


class Events(_Message):
    """The news of one step of all sessions, and now and then the counters."""

    emissions: list[StepOutput]
    stats: EngineStats | None = None


class TaskUpdates(_Message):
    """What one step brought of the tasks. Large results come in several."""

    news: list[TaskUpdate]


class Pong(_Message):
    n: int


class Fatal(_Message):
    """The engine cannot go on; the process ends after this."""

    message: str


ToEngine = Load | SubmitRequest | SubmitTask | Cancel | Pause | Resume | Ping | Shutdown
ToServer = Progress | Ready | LoadFailed | Events | TaskUpdates | Pong | Fatal

_encoder = msgspec.msgpack.Encoder()


def encode(message: ToEngine | ToServer) -> bytearray:
    """A whole frame."""
    frame = bytearray(_HEAD)
    _encoder.encode_into(message, frame, _HEAD)
    size = len(frame) - _HEAD
    if size > MAX_FRAME:
        raise ProtocolError(f"a message of {size} bytes is larger than the {MAX_FRAME} that a frame may hold")
    frame[:_HEAD] = size.to_bytes(_HEAD, "little")
    return frame


T = TypeVar("T")


class Reader(Generic[T]):
    """Turns bytes as they arrive into messages. Memory is bounded by one frame and one read."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decode = decoder.decode
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """The messages completed by `data`; raises ProtocolError on what is no frame."""
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
                    raise ProtocolError(f"a frame claims {size} bytes; at most {MAX_FRAME} are allowed")
                if end - start - _HEAD < size:
                    break
                messages.append(self._decode(view[start + _HEAD : start + _HEAD + size]))
                start += _HEAD + size
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(f"a frame cannot be read: {error}") from error
        finally:
            view.release()
        if whole is self._pending:
            del self._pending[:start]
        else:
            self._pending += data[start:]
        return messages


def engine_reader() -> Reader[ToEngine]:
    """For the engine process: reads what the server sends."""
    return Reader(msgspec.msgpack.Decoder(ToEngine))


def server_reader() -> Reader[ToServer]:
    """For the server: reads what an engine process sends."""
    return Reader(msgspec.msgpack.Decoder(ToServer))
