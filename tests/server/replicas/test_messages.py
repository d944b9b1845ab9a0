"""What travels between an ingress and a replica arrives as it was sent."""

from __future__ import annotations

import time

from engine.tasks.types import Embed, Embedded, TaskFailure
from engine.types import EngineStats, Request, StepOutput, Token
from server.replicas import messages


def test_decoded_request_has_no_slot() -> None:
    request = Request(id="a", prompt=[1, 2], generated=[3], sampler_state=1.5, slot=7, cache_salt="s")
    arrived = messages.decode_request(messages.encode_request(request))
    assert arrived == Request(id="a", prompt=[1, 2], generated=[3], sampler_state=1.5, cache_salt="s")


def test_deadline_is_sent_as_the_time_left(monkeypatch) -> None:
    frame = messages.encode_request(Request(id="a", prompt=[1], deadline_ms=time.monotonic() * 1000 + 5000))
    monkeypatch.setattr(messages.time, "monotonic", lambda: 7.0)  # of another machine
    deadline = messages.decode_request(frame).deadline_ms
    assert deadline is not None
    assert 7000 < deadline <= 12_000


def test_outputs_and_tasks_survive_encoding() -> None:
    outputs = messages.Outputs([StepOutput(id="a", tokens=[Token(5)])], "replica", EngineStats(steps=3))
    assert messages.decode_outputs(messages.encode(outputs)) == outputs
    task = Embed([[1, 2]], pooling="mean")
    assert messages.decode_task(messages.encode(task)) == task
    for end in (messages.TaskEnd(Embedded([b"1234"], 1)), messages.TaskEnd(failure=TaskFailure("E", "no"))):
        assert messages.decode_task_end(messages.encode(end)) == end
