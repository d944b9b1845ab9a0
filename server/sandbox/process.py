"""The child process that tries constraints out: `python -m server.sandbox.process`.

Frames (length, msgpack) come on stdin: first the vocabulary, then constraints. For each a verdict goes back
on stdout. A constraint that takes too much time or memory, or breaks the compiler, ends this process and
nothing else.
"""

from __future__ import annotations

import contextlib
import sys
from typing import IO

import msgspec

from engine.constraint.compiler import Compiler, Vocabulary
from engine.errors import ConfigError
from engine.types import Constraint

CPU_S = 2.0  # for one constraint: of the processor's time, which other work does not shorten
MEMORY = 4 << 30
HEAD = 4


def read(stream: IO[bytes]) -> bytes | None:
    """The next frame; None at the end."""
    head = stream.read(HEAD)
    if len(head) < HEAD:
        return None
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    return data if len(data) == size else None


def write(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(HEAD, "little") + data)
    stream.flush()


class Verdict(msgspec.Struct, array_like=True, frozen=True):
    """Why a constraint is refused, empty if it is not; and what of it will not be enforced."""

    refusal: str = ""
    ignored: tuple[str, ...] = ()


def trial(compiler: Compiler, constraint: Constraint) -> Verdict:
    try:
        matcher = compiler.compile(constraint)
        compiler.probe(matcher)
    except ConfigError as error:
        return Verdict(str(error).encode("utf-8", "replace").decode())
    return Verdict("", matcher.ignored)


def _limit_time(seconds: float) -> None:
    if sys.platform != "win32":  # there the server's clock has to do
        import signal

        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    _limit_memory()
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    first = read(stdin)
    if first is None:
        return 0
    compiler = Compiler(msgspec.msgpack.decode(first, type=Vocabulary))
    compiler.compile(Constraint("json_object"))  # what is made once for the vocabulary does not count
    write(stdout, msgspec.msgpack.encode(Verdict()))
    while (data := read(stdin)) is not None:
        constraint = msgspec.msgpack.decode(data, type=Constraint)
        _limit_time(CPU_S)
        verdict = trial(compiler, constraint)
        _limit_time(0.0)
        write(stdout, msgspec.msgpack.encode(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main())
