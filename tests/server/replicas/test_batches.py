"""Joining outputs loses none and holds up neither the first nor the last."""

from __future__ import annotations

import asyncio

import pytest

from engine.types import FinishReason, Request, StepOutput, Token
from server.replicas.batches import batches
from server.worker.requests.stream import Stream

pytestmark = pytest.mark.asyncio
LONG_S = 3600.0


class Owner:
    def pause(self, stream: Stream) -> None: ...
    def resume(self, stream: Stream) -> None: ...
    def leave(self, stream: Stream) -> None: ...


def stream_of(*tokens: int, end: bool = False) -> Stream:
    stream = Stream(Owner(), Request(id="a", prompt=[1]))
    for token in tokens:
        push(stream, token)
    if end:
        stream.push(StepOutput(id="a", finish=FinishReason.STOP))
    return stream


def push(stream: Stream, token: int) -> None:
    stream.push(StepOutput(id="a", tokens=[Token(token)]))


def tokens(batch: list[StepOutput]) -> list[int]:
    return [token.id for output in batch for token in output.tokens]


async def test_first_and_last_output_are_not_delayed() -> None:
    joined = batches(stream_of(1, 2, 3, end=True), LONG_S)
    assert tokens(await anext(joined)) == [1]
    last = await anext(joined)
    assert (tokens(last), last[-1].finish) == ([2, 3], FinishReason.STOP)
    with pytest.raises(StopAsyncIteration):
        await anext(joined)


async def test_outputs_without_an_interval_are_sent_one_by_one() -> None:
    joined = [tokens(batch) async for batch in batches(stream_of(1, 2, 3, end=True), 0.0)]
    assert joined == [[1], [2], [3], []]


async def test_outputs_are_sent_at_the_interval_even_if_none_follow() -> None:
    stream = stream_of(1)
    joined = batches(stream, 0.01)
    assert tokens(await anext(joined)) == [1]
    push(stream, 2)
    push(stream, 3)
    assert tokens(await anext(joined)) == [2, 3]
    await joined.aclose()


async def test_repeated_timeouts_lose_no_output() -> None:
    stream = stream_of()

    async def write() -> None:
        for token in range(30):
            push(stream, token)
            await asyncio.sleep(0.001)
        stream.push(StepOutput(id="a", finish=FinishReason.STOP))

    writing = asyncio.create_task(write())
    joined = [tokens(batch) async for batch in batches(stream, 0.0015)]
    await writing
    assert [token for batch in joined for token in batch] == list(range(30))


async def test_failure_comes_after_earlier_outputs() -> None:
    stream = stream_of(1, 2)
    joined = batches(stream, LONG_S)
    assert tokens(await anext(joined)) == [1]
    stream.fail(RuntimeError("it failed"))
    assert tokens(await anext(joined)) == [2]
    with pytest.raises(RuntimeError, match="it failed"):
        await anext(joined)
