"""One stream without an engine: back-pressure, restarts, timings and ends."""

from __future__ import annotations

import asyncio

import pytest

from engine.types import FinishReason, StepOutput, Timings, Token
from server.worker.requests.stream import HIGH_WATER, LOW_WATER, Stream
from support.fakes.engine_client import collect, request

pytestmark = pytest.mark.asyncio


class Owner:
    """Notes what a stream asks for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self, stream: Stream) -> None:
        self.calls.append("pause")

    def resume(self, stream: Stream) -> None:
        self.calls.append("resume")

    def leave(self, stream: Stream) -> None:
        self.calls.append("leave")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_stream(n: int = 1000, **fields) -> tuple[Stream, Owner, Clock]:
    owner, clock = Owner(), Clock()
    return Stream(owner, request("a", [1, 2, 3], n, **fields), clock), owner, clock


def token(id: int, **fields) -> StepOutput:
    return StepOutput(id="a", tokens=[Token(id)], **fields)


async def test_a_stream_pauses_at_the_high_water_mark_and_resumes_at_the_low_one():
    stream, owner, _ = make_stream()
    for i in range(HIGH_WATER - 1):
        stream.push(token(i))
    assert owner.calls == []
    stream.push(token(-1))
    stream.push(token(-2))  # was on the way
    assert owner.calls == ["pause"]
    assert stream.info("m").state == "paused"
    for _ in range(HIGH_WATER + 1 - LOW_WATER - 1):
        await anext(stream)
    assert owner.calls == ["pause"]
    await anext(stream)
    assert owner.calls == ["pause", "resume"]


async def test_read_timeout_expires_unless_the_client_reads_in_time():
    stream, _, _ = make_stream()
    expired = asyncio.Event()
    stream.set_read_timeout(0.0, expired.set)
    await expired.wait()
    expired.clear()
    for i in range(HIGH_WATER):
        stream.push(token(i))
    stream.set_read_timeout(0.0, expired.set)
    for _ in range(HIGH_WATER - LOW_WATER):
        await anext(stream)  # does not give control to the loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not expired.is_set()


async def test_only_the_latest_prefill_progress_is_kept():
    stream, _, _ = make_stream()
    assert stream.info("m").state == "queued"
    for processed in (1, 2, 3):
        stream.push(StepOutput(id="a", processed=processed))
    assert stream.info("m").state == "prefill"
    stream.push(token(7, finish=FinishReason.STOP))
    assert [output.processed async for output in stream] == [3, None]


async def test_continuation_has_the_received_tokens_and_sampler_state():
    stream, _, _ = make_stream(generated=[9])
    assert stream.continuation() is stream.request
    stream.push(StepOutput(id="a", tokens=[Token(4), Token(5, sampler_state=2.5)]))
    continued = stream.continuation()
    assert (continued.generated, continued.sampler_state, continued.prompt) == ([9, 4, 5], 2.5, [1, 2, 3])


async def test_a_stream_is_complete_once_it_has_max_tokens():
    stream, _, _ = make_stream(2)
    stream.push(token(1))
    assert not stream.complete
    stream.push(token(2))
    assert stream.complete


async def test_timings_after_a_restart_match_those_of_the_whole_request():
    stream, _, clock = make_stream()
    stream.push(token(1, timings=Timings(prompt_n=3, prompt_ms=8.0, predicted_n=1)))
    stream.continuation()  # the engine has been restarted
    stream.push(token(2, timings=Timings(prompt_n=4, predicted_n=1)))
    clock.now += 2.0
    stream.push(token(3, finish=FinishReason.STOP, timings=Timings(prompt_n=4, predicted_n=2)))
    timings = [output.timings async for output in stream]
    assert timings[1] is None
    assert timings[2] == Timings(prompt_n=3, prompt_ms=8.0, predicted_n=3, predicted_ms=2000.0)


async def test_stream_ended_by_the_server_has_the_timings_known_so_far():
    stream, _, clock = make_stream()
    stream.push(token(1, timings=Timings(prompt_n=3)))
    clock.now += 1.0
    stream.end(FinishReason.CANCELLED, "cancelled")
    outputs = [output async for output in stream]
    assert (outputs[-1].finish, outputs[-1].error) == (FinishReason.CANCELLED, "cancelled")
    assert (outputs[-1].timings.prompt_n, outputs[-1].timings.predicted_ms) == (3, 1000.0)


async def test_failure_is_raised_after_queued_outputs():
    stream, _, _ = make_stream()
    stream.push(token(1))
    stream.fail(RuntimeError("gone"))
    stream.push(token(2))  # too late
    assert (await anext(stream)).tokens[0].id == 1
    with pytest.raises(RuntimeError, match="gone"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_close_leaves_once_and_ends_a_waiting_reader():
    stream, owner, _ = make_stream()
    reading = asyncio.create_task(collect(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    await stream.aclose()
    assert owner.calls == ["leave"]
    assert await reading == ([], None, None)


async def test_close_of_a_finished_stream_does_not_leave():
    stream, owner, _ = make_stream()
    stream.push(token(1, finish=FinishReason.STOP))
    await stream.aclose()
    assert owner.calls == []


async def test_token_resets_the_crash_count():
    stream, _, _ = make_stream()
    stream.crashes = 2
    stream.push(StepOutput(id="a", processed=1))
    assert stream.crashes == 2
    stream.push(token(1))
    assert stream.crashes == 0
