"""A sandboxed process is limited by the system, replaced once it died, and never outlives its owner."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

import pytest

from server.sandbox.process import ChildDied, ChildTimeout, SandboxProcess

# Evaluates each message as an expression.
EVALUATOR = """
import os, sys, time
from server.sandbox.child import connect, limit_cpu, limit_memory, serve

limit_memory(1 << 30)
serve(connect(), lambda message: str(eval(message)).encode(), float(sys.argv[1]))
"""


def evaluator(cpu_s: float = 60.0, setup: bytes | None = None) -> SandboxProcess:
    return SandboxProcess((sys.executable, "-c", EVALUATOR, str(cpu_s)), setup)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_and_wait(pid: int) -> None:
    """Until the process is dead, but not reaped."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_ctrl_c_on_the_terminal_leaves_the_process_running() -> None:
    process = evaluator()
    pid = int(process.request(b"os.getpid()", 60))
    os.kill(pid, signal.SIGINT)
    assert int(process.request(b"os.getpid()", 60)) == pid


def test_messages_of_any_length_are_answered_by_one_process() -> None:
    process = evaluator()
    assert process.request(b"os.getpid()", 60) == process.request(b"os.getpid()", 60)
    text = b"x" * (1 << 22)
    assert process.request(b"'" + text + b"'", 60) == text
    assert process.request(b"''", 60) == b""


def test_crash_raises_child_died_and_next_message_gets_a_new_process() -> None:
    process = evaluator()
    first = process.request(b"os.getpid()", 60)
    with pytest.raises(ChildDied) as caught:
        process.request(b"os.abort()", 60)
    assert not caught.value.cpu_limit
    assert process.request(b"os.getpid()", 60) != first


def test_process_killed_between_messages_is_replaced_silently() -> None:
    process = evaluator()
    pid = int(process.request(b"os.getpid()", 60))
    kill_and_wait(pid)
    assert int(process.request(b"os.getpid()", 60)) != pid


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of processor time")
def test_processor_time_over_the_limit_ends_the_process() -> None:
    process = evaluator(cpu_s=0.05)
    with pytest.raises(ChildDied) as caught:
        process.request(b"sum(1 for _ in iter(int, 1))", 60)
    assert caught.value.cpu_limit
    assert process.request(b"1", 60) == b"1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_memory_over_the_limit_is_refused_by_the_system() -> None:
    assert evaluator().request(b"len(b'x' * (1 << 20))", 60) == b"1048576"
    with pytest.raises(ChildDied):
        evaluator().request(b"len(b'x' * (1 << 31))", 60)


def test_no_answer_in_time_raises_child_timeout_and_kills_it() -> None:
    process = evaluator()
    pid = int(process.request(b"os.getpid()", 60))
    with pytest.raises(ChildTimeout):
        process.request(b"time.sleep(600)", 0.2)
    assert not is_running(pid)


def test_kill_ends_a_request_under_way() -> None:
    process = evaluator()
    process.request(b"0", 60)
    timer = threading.Timer(0.2, process.kill)
    timer.start()
    with pytest.raises(ChildDied):
        process.request(b"time.sleep(600)", 60)


def test_setup_is_sent_to_every_new_process() -> None:
    process = evaluator(setup=b"exec('import os; os.ready = 1')")
    for _ in range(2):
        assert process.request(b"os.ready", 60) == b"1"
        kill_and_wait(int(process.request(b"os.getpid()", 60)))


def test_process_ends_with_its_owner() -> None:
    process = evaluator()
    pid = int(process.request(b"os.getpid()", 60))
    del process
    gc.collect()
    assert not is_running(pid)
