"""Requests and tasks in flight, without a process: what is sent when, and what survives a crash."""

from __future__ import annotations

import asyncio

import pytest

from engine.tasks.types import Erased, EraseSlot, TaskUpdate
from engine.types import FinishReason, Request, StepOutput, Token
from server.worker import messages
from server.worker.errors import EngineUnavailable, TaskFailed
from server.worker.requests.in_flight import InFlight
from support.fakes.engine_client import collect, request

pytestmark = pytest.mark.asyncio


class Engine:
    """Notes what is sent to it."""

    def __init__(self, state: str = "ready") -> None:
        self.state = state
        self.sent: list[messages.ToEngine] = []

    def send(self, message: messages.ToEngine) -> None:
        self.sent.append(message)

    def take(self) -> list[messages.ToEngine]:
        sent, self.sent = self.sent, []
        return sent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(state: str = "ready") -> tuple[InFlight, Engine, Clock]:
    engine, clock = Engine(state), Clock()
    return InFlight("m", engine, parallel=4, send_timeout_s=60.0, clock=clock), engine, clock


def crash(in_flight: InFlight, engine: Engine):
    engine.state = "restarting"
    decision = in_flight.on_exit()
    engine.take()
    engine.state = "ready"
    in_flight.on_ready()
    return decision


async def test_a_request_is_sent_at_once_with_a_seed():
    in_flight, engine, _ = make()
    stream = in_flight.submit(request("a", [1], 5))
    (sent,) = engine.take()
    assert isinstance(sent, Request)
    assert (sent.id, sent.prompt) == ("a", [1])
    assert sent.params.seed is not None
    assert (len(in_flight), in_flight.empty.is_set(), stream.sent) == (1, False, True)


async def test_requests_are_not_sent_while_there_is_no_engine():
    in_flight, engine, _ = make("restarting")
    in_flight.submit(request("a", [1], 5))
    in_flight.submit(request("b", [1], 5))
    assert engine.take() == []
    engine.state = "ready"
    in_flight.on_ready()
    assert [sent.id for sent in engine.take()] == ["a", "b"]


async def test_output_clears_earlier_crashes():
    in_flight, engine, _ = make()
    in_flight.submit(request("a", [1], 50))
    for _ in range(10):
        in_flight.on_outputs([StepOutput(id="a", tokens=[Token(7)])])
        decision = crash(in_flight, engine)
        assert (decision.delay_s, decision.give_up) == (0.0, False)


async def test_request_is_sent_again_with_its_tokens_after_a_crash():
    in_flight, engine, _ = make()
    in_flight.submit(request("a", [1], 5))
    (first,) = engine.take()
    in_flight.on_outputs([StepOutput(id="a", tokens=[Token(7)])])
    assert crash(in_flight, engine).culprit is None
    (again,) = engine.take()
    assert (again.generated, again.params.seed) == ([7], first.params.seed)


async def test_request_with_all_its_tokens_at_a_crash_ends():
    in_flight, engine, _ = make()
    stream = in_flight.submit(request("a", [1], 1))
    in_flight.on_outputs([StepOutput(id="a", tokens=[Token(7)])])
    crash(in_flight, engine)
    assert engine.take() == []
    assert await collect(stream) == ([7], FinishReason.LENGTH, None)
    assert in_flight.empty.is_set()


async def test_suspects_are_retried_one_at_a_time_until_each_is_cleared():
    in_flight, engine, _ = make()
    streams = [in_flight.submit(request(id, [1], 5)) for id in "ab"]
    engine.take()
    crash(in_flight, engine)
    engine.take()
    crash(in_flight, engine)
    assert [sent.id for sent in engine.take()] == ["a"]
    in_flight.on_outputs([StepOutput(id="a", tokens=[Token(7)])])
    assert [sent.id for sent in engine.take()] == ["b"]
    assert crash(in_flight, engine).culprit is streams[1]
    assert (await collect(streams[1]))[1] is FinishReason.ERROR
    assert [sent.id for sent in engine.take()] == ["a"]


async def test_a_task_that_crashes_the_engine_twice_fails():
    in_flight, engine, _ = make()
    running = asyncio.create_task(in_flight.run(EraseSlot([1])))
    await asyncio.sleep(0)
    assert engine.take() == [messages.SubmitTask("task-1", EraseSlot([1]))]
    crash(in_flight, engine)
    assert engine.take() == [messages.SubmitTask("task-1", EraseSlot([1]))]
    crash(in_flight, engine)
    with pytest.raises(TaskFailed, match="died more than once"):
        await running
    assert len(in_flight) == 0


async def test_a_task_returns_its_result():
    in_flight, _, _ = make()
    running = asyncio.create_task(in_flight.run(EraseSlot([1])))
    await asyncio.sleep(0)
    in_flight.on_task_updates([TaskUpdate("unknown"), TaskUpdate("task-1", result=Erased(3))])
    assert await running == Erased(3)
    assert in_flight.empty.is_set()


async def test_deadlines_are_enforced_while_there_is_no_engine():
    in_flight, _, clock = make("restarting")
    late = in_flight.submit(request("late", [1], 5, deadline_ms=(clock.now + 1) * 1000))
    in_flight.submit(request("other", [1], 5))
    in_flight.expire()
    assert len(in_flight) == 2
    clock.now += 2
    in_flight.expire()
    assert (await collect(late))[1] is FinishReason.TIMEOUT
    assert [stream.request.id for stream in in_flight.streams] == ["other"]


async def test_engine_that_will_not_restart_fails_every_request():
    in_flight, _, _ = make()
    stream = in_flight.submit(request("a", [1], 5))
    running = asyncio.create_task(in_flight.run(EraseSlot([1])))
    await asyncio.sleep(0)
    in_flight.fail_all(EngineUnavailable("m has failed"))
    for waiting in (collect(stream), running):
        with pytest.raises(EngineUnavailable, match="m has failed"):
            await waiting
    assert in_flight.empty.is_set()


async def test_mean_duration_is_that_of_finished_requests():
    in_flight, _, clock = make()
    for seconds in (1.0, 3.0):
        in_flight.submit(request("a", [1], 5))
        clock.now += seconds
        in_flight.on_outputs([StepOutput(id="a", finish=FinishReason.STOP)])
    assert in_flight.mean_duration_s == 2.0
