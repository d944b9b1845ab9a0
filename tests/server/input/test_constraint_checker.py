"""`ConstraintChecker`: one compilation a constraint, a limited process that is replaced, a bounded queue."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.types import Constraint
from server.input import constraints
from server.input.constraints import MAX_WAITING, CheckerBusy, ConstraintChecker
from support.fakes.engine import tokenizer

pytestmark = pytest.mark.asyncio


GOOD = Constraint("regex", "a+")
# Executes the text of each constraint and answers with its process id.
EXECUTOR = """
import os, sys, time
import msgspec
from engine.types import Constraint
from server.sandbox.child import connect, limit_cpu, serve
from server.sandbox.constraint_child import CheckResult

def handle(message):
    exec(msgspec.msgpack.decode(message, type=Constraint).text)
    return msgspec.msgpack.encode(CheckResult(str(os.getpid())))

connection = connect()
connection.recv_bytes()
connection.send_bytes(b"")
serve(connection, handle, 60)
"""
EXECUTE = (sys.executable, "-c", EXECUTOR)


@asynccontextmanager
async def checking(*command: str) -> AsyncIterator[ConstraintChecker]:
    checker = ConstraintChecker(tokenizer(), command or None)
    try:
        yield checker
    finally:
        checker.close()


def code(text: str) -> Constraint:
    return Constraint("lark", text)


async def test_result_is_cached_and_process_reused() -> None:
    async with checking(*EXECUTE) as checker:
        first = await checker.check(code("pass"))
        assert await checker.check(code("pass")) is first
        assert await checker.check(code("1")) == first
    assert int(first.error)


async def test_process_dies_constraint_is_refused_and_process_replaced() -> None:
    async with checking(*EXECUTE) as checker:
        first = await checker.check(code("pass"))
        refused = await checker.check(code("os.abort()"))
        assert "cannot be compiled" in refused.error
        assert (await checker.check(code("1"))).error != first.error
        assert await checker.check(code("os.abort()")) == refused


async def test_timeout_is_refused_but_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    async with checking(*EXECUTE) as checker:
        await checker.check(code("pass"))  # the start of the process has all its time
        monkeypatch.setattr(constraints, "TIMEOUT_S", 1.0)
        late = await checker.check(code("time.sleep(600)"))
        assert late.error == "takes too long to compile"
        assert await checker.check(code("time.sleep(600)")) is not late


async def test_too_much_processor_time_is_refused() -> None:
    async with checking(*EXECUTE) as checker:
        late = await checker.check(code("limit_cpu(0.05)\nwhile True: pass"))
        assert "of processor time" in late.error


async def test_process_does_not_start_every_constraint_is_refused() -> None:
    async with checking(sys.executable, "-c", "pass") as checker:
        with pytest.raises(RuntimeError):
            await checker.check(GOOD)


async def test_constraints_beyond_the_concurrent_limit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_WAITING", 2)
    async with checking() as checker:
        results = await asyncio.gather(*(checker.check(Constraint("regex", f"a{i}")) for i in range(9)))
        assert [result.error for result in results] == [""] * 9
        assert (checker._n_queued, checker._running) == (0, {})


async def test_a_wait_that_is_too_long_raises_checker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_WAITING", 1)
    monkeypatch.setattr(constraints, "QUEUE_S", 0.05)
    async with checking(*EXECUTE) as checker:
        slow = asyncio.create_task(checker.check(code("time.sleep(1)")))
        await asyncio.sleep(0)
        with pytest.raises(CheckerBusy):
            await checker.check(GOOD)
        await slow


async def test_full_queue_raises_checker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_WAITING", 2)
    monkeypatch.setattr(constraints, "MAX_QUEUED", 0)
    async with checking() as checker:
        waiting = [asyncio.create_task(checker.check(Constraint("regex", f"a{i}"))) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(CheckerBusy):
            await checker.check(GOOD)
        assert [result.error for result in await asyncio.gather(*waiting)] == ["", ""]
        assert (await checker.check(GOOD)).error == ""


async def test_same_constraint_at_once_is_compiled_once(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    text = f"open({str(runs)!r}, 'a').write('x')"
    async with checking(*EXECUTE) as checker:
        results = await asyncio.gather(*(checker.check(code(text)) for _ in range(3 * MAX_WAITING)))
    assert all(result is results[0] for result in results)
    assert runs.read_text() == "x"


async def test_full_queue_accepts_a_constraint_already_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_WAITING", 1)
    monkeypatch.setattr(constraints, "MAX_QUEUED", 0)
    async with checking() as checker:
        waiting = [asyncio.create_task(checker.check(GOOD)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(CheckerBusy):
            await checker.check(Constraint("regex", "b"))
        assert [result.error for result in await asyncio.gather(*waiting)] == [""] * 3


async def test_first_caller_leaves_others_get_the_result() -> None:
    async with checking() as checker:
        first, second = (asyncio.create_task(checker.check(GOOD)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).error == ""
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_same_constraint_fails_every_caller_gets_the_error() -> None:
    async with checking(sys.executable, "-c", "pass") as checker:
        results = await asyncio.gather(*(checker.check(GOOD) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3


async def test_process_dies_every_caller_is_refused() -> None:
    async with checking(*EXECUTE) as checker:
        refused = await asyncio.gather(*(checker.check(code("os.abort()")) for _ in range(3)))
        assert all("cannot be compiled" in result.error for result in refused)
        assert int((await checker.check(code("pass"))).error)


async def test_unpaired_surrogates_are_refused() -> None:
    async with checking() as checker:
        assert "surrogates" in (await checker.check(code('start: "\ud800"'))).error
