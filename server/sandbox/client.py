"""Tries constraints out in a process of their own before an engine sees them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from engine.constraint.compiler import MAX_BYTES, vocabulary_of
from engine.types import Constraint
from server.sandbox.process import CPU_S, Verdict, read, write

WALL_S = 30.0  # for one constraint, on a machine that has other things to do
MAX_WAITING = 16
_REMEMBERED = 512  # verdicts


class Busy(Exception):
    """Too many constraints wait to be tried out."""


class ConstraintChecker:
    """Says of constraints whether they compile for a model. Its process starts with the first one.

    tokenizer: the model's. command: what to run in place of `server.sandbox.process`.
    """

    def __init__(self, tokenizer: Any, command: list[str] | None = None) -> None:
        self._tokenizer = tokenizer
        self._command = command or [sys.executable, "-m", "server.sandbox.process"]
        self._thread = ThreadPoolExecutor(1, "ggserve-grammar")
        self._waiting = 0
        self._known: OrderedDict[bytes, Verdict] = OrderedDict()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._end: Any = None

    async def verdict(self, constraint: Constraint) -> Verdict:
        """Whether it compiles. Raises Busy."""
        if len(constraint.text) > MAX_BYTES:
            message = f"{len(constraint.text)} characters are too many; at most {MAX_BYTES} are compiled"
            return Verdict(message)
        text = constraint.text.encode("utf-8", "surrogatepass")
        key = hashlib.sha256(constraint.kind.encode() + b"\0" + text).digest()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        if self._waiting >= MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            verdict, lasting = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._ask, constraint
            )
        finally:
            self._waiting -= 1
        if lasting:
            self._known[key] = verdict
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return verdict

    def close(self) -> None:
        """End the process. What waits is refused."""
        self._closed = True
        if self._end is not None:
            self._end()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ** in the thread **

    def _ask(self, constraint: Constraint) -> tuple[Verdict, bool]:
        """What the process says, and whether it would say so again."""
        try:
            data = msgspec.msgpack.encode(constraint)
        except UnicodeEncodeError:
            return Verdict("unpaired surrogates are no text"), True
        process = self._running()
        answer, in_time = _exchange(process, data)
        if answer is not None:
            return msgspec.msgpack.decode(answer, type=Verdict), True
        self._stop()
        if not in_time:
            return Verdict("takes too long to compile"), False
        if process.returncode == -getattr(signal, "SIGPROF", 0):
            return Verdict(f"takes more than {CPU_S:g} s of processor time to compile"), True
        message = "cannot be compiled: it takes too much memory, or breaks the compiler"
        return Verdict(message), not self._closed

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
            )
            self._end = weakref.finalize(self, _end, process)
            vocabulary = msgspec.msgpack.encode(vocabulary_of(self._tokenizer))
            if _exchange(process, vocabulary)[0] is None or self._closed:
                self._stop()
                raise RuntimeError("the process that tries out grammars does not start")
        return self._process

    def _stop(self) -> None:
        self._process = None
        if self._end is not None:
            self._end()


def _exchange(process: subprocess.Popen[bytes], data: bytes) -> tuple[bytes | None, bool]:
    """The answer to one frame, None if the process ended; and whether that was not our doing."""
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    clock = threading.Timer(WALL_S, stop)
    clock.daemon = True
    clock.start()
    try:
        write(process.stdin, data)
        answer = read(process.stdout)
    except OSError:
        answer = None
    finally:
        clock.cancel()
    return answer, not late.is_set()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # of what was still to be written
                pipe.close()
    process.wait()
