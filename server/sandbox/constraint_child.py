"""The child process that compiles constraints: `python -m server.sandbox.constraint_child HANDLE`.

Messages are msgpack: first the vocabulary, then constraints, each of which is answered by a CheckResult. A
constraint that takes too much time or memory, or crashes the compiler, ends only this process.
"""

from __future__ import annotations

import sys

import msgspec

from engine.constraint.compiler import ConstraintCompiler, GrammarVocabulary
from engine.errors import ConfigError
from engine.types import Constraint
from server.sandbox.child import connect, limit_memory, serve

CPU_S = 2.0  # for one constraint: processor time, which a busy machine does not shorten
MEMORY = 4 << 30


class CheckResult(msgspec.Struct, array_like=True, frozen=True):
    """error: why the constraint is refused; empty if it compiles. not_enforced: keywords without effect."""

    error: str = ""
    not_enforced: tuple[str, ...] = ()


def check(compiler: ConstraintCompiler, constraint: Constraint) -> CheckResult:
    try:
        matcher = compiler.compile(constraint)
        compiler.probe(matcher)
    except ConfigError as error:
        return CheckResult(str(error).encode("utf-8", "replace").decode())
    return CheckResult("", matcher.ignored)


def main() -> int:
    limit_memory(MEMORY)
    connection = connect()
    compiler = ConstraintCompiler(msgspec.msgpack.decode(connection.recv_bytes(), type=GrammarVocabulary))
    compiler.compile(Constraint("json_object"))  # what is built once per vocabulary counts towards no limit
    connection.send_bytes(b"")

    def handle(message: bytes) -> bytes:
        constraint = msgspec.msgpack.decode(message, type=Constraint)
        return msgspec.msgpack.encode(check(compiler, constraint))

    serve(connection, handle, CPU_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
