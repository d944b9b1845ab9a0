"""One process for the constraints of all applications of a run: starting one takes longer than most tests."""

from __future__ import annotations

from threading import Lock
from typing import Any

import msgspec

from engine.constraint.compiler import vocabulary_of
from server.input.constraints import ConstraintChecker
from server.sandbox.process import SandboxProcess, module_command
from support.fakes.engine import tokenizer as fake_tokenizer


class SharedProcess(SandboxProcess):
    """For checkers of several applications. It outlives them."""

    def __init__(self) -> None:
        vocabulary = msgspec.msgpack.encode(vocabulary_of(fake_tokenizer()))
        super().__init__(module_command("server.sandbox.constraint_child"), setup=vocabulary)
        self._turn = Lock()

    def request(self, message: bytes, timeout_s: float) -> bytes:
        with self._turn:
            return super().request(message, timeout_s)

    def kill(self) -> None:
        """Not with one of the applications."""


_shared: list[SharedProcess] = []


def shared_checker(tokenizer: Any) -> ConstraintChecker:
    """The checker of a model; those of fake engines have one process."""
    checker = ConstraintChecker(tokenizer)
    if tokenizer is fake_tokenizer():
        if not _shared:
            _shared.append(SharedProcess())
        checker._process = _shared[0]
    return checker
