"""How the exit of an engine process is described, what it inherits, and how its log is read."""

from __future__ import annotations

import logging

import pytest

from server.worker.supervision import child
from server.worker.supervision.child import describe_exit


def test_describe_exit_quotes_the_last_log_line():
    bus = ["loading", "Fatal Python error: Bus error", "Current thread 0x00", '  File "x.py", line 1']
    assert describe_exit(-7, bus[1:]).endswith("last log: Fatal Python error: Bus error")
    assert describe_exit(-7, bus).endswith("last log: loading")
    assert describe_exit(-6, ["CUDA error: out of memory", "more"]).endswith("CUDA error: out of memory")
    assert describe_exit(-9, []) == "the engine process was killed by SIGKILL (out of memory?)"
    assert "SIGBUS (model file truncated?)" in describe_exit(-7, [])
    assert describe_exit(3, ["a", "x\x1b"]) == r"the engine process exited with status 3; last log: x\x1b"
    assert describe_exit(-99, []) == "the engine process was killed by signal 99"


@pytest.fixture
def reader(caplog):
    caplog.set_level(logging.DEBUG)
    return child._LogReader("m")


def test_log_lines_are_joined_and_only_warnings_are_kept(reader, caplog):
    for data in (b"<20>engine: lo", b"aded\n<30>engine: odd\nplain", b" text\n\n"):
        reader.data_received(data)
    assert list(reader.lines) == ["odd", "plain text"]
    assert [r.getMessage() for r in caplog.records] == ["[m] loaded", "[m] odd", "[m] plain text"]


def test_a_line_without_end_is_cut(reader):
    reader.data_received(b"x" * 10_000)
    assert [len(line) for line in reader.lines] == [4096]


def test_last_line_without_a_line_break_counts(reader):
    reader.data_received(b"Aborted")
    reader.connection_lost(None)
    assert list(reader.lines) == ["Aborted"]
    assert reader.ended.is_set()
