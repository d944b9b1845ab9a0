"""A replica on the fake engine process: its streams, their end, its reports and its health."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager

import pytest

from engine.tasks.types import Embed, EraseSlot
from engine.types import FinishReason
from server.config.settings import Settings
from server.replicas import messages
from server.replicas.options import Deployment
from server.replicas.replica import Replica
from server.replicas.routing import RecentBlocks, prefix_keys
from support.fakes.engine import STORIES
from support.fakes.engine_client import FAKE, request
from support.fakes.engine_process import PARALLEL, text_of
from support.waiting import until

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def running(*arguments: str, **fields):
    settings = Settings(model=[str(STORIES)], parallel=PARALLEL, max_queue=0)
    options = Deployment.of(settings, **fields).model_dump()
    exits: list[int] = []
    replica = Replica(options, argv=[sys.executable, str(FAKE), *arguments], exit=exits.append)
    replica.exits = exits
    await replica.start()
    try:
        yield replica
    finally:
        await replica.client.stop()


async def frames(replica: Replica, call) -> list[messages.Outputs]:
    return [messages.decode_outputs(frame) async for frame in replica.generate(messages.encode_request(call))]


def tokens(outputs: list[messages.Outputs]) -> list[int]:
    return [token.id for message in outputs for output in message.outputs for token in output.tokens]


async def test_a_request_is_streamed_and_the_last_frame_has_the_counters():
    async with running() as replica:
        outputs = await frames(replica, request("a", [1, 2], 4))
        assert tokens(outputs) == text_of([1, 2], 4)
        assert [message.replica for message in outputs[:-1]] == [replica.id, *[""] * (len(outputs) - 2)]
        last = outputs[-1]
        assert (last.replica, last.outputs[0].finish) == (replica.id, FinishReason.LENGTH)
        assert last.stats is not None
        assert replica.info()["n_ctx"] == 4096


async def test_tokens_are_sent_together_at_an_interval():
    async with running(stream_interval_ms=10_000) as replica:
        outputs = await frames(replica, request("a", [1, 2], 40))
        assert tokens(outputs) == text_of([1, 2], 40)
        assert [len(message.outputs) for message in outputs] == [1, 39]


async def test_request_continues_after_the_tokens_its_client_has():
    async with running() as replica:
        text = text_of([1, 2], 6)
        outputs = await frames(replica, request("a", [1, 2], 6, generated=text[:2]))
        assert tokens(outputs) == text[2:]


async def test_closing_the_stream_ends_the_request():
    async with running("--step-ms", "5") as replica:
        stream = replica.generate(messages.encode_request(request("a", [1], 4000)))
        await anext(stream)
        await stream.aclose()
        assert replica.client.requests() == []


async def test_request_replaces_a_lost_one_with_the_same_id():
    async with running("--step-ms", "5") as replica:
        lost = replica.generate(messages.encode_request(request("a", [1], 4000)))
        await anext(lost)
        assert tokens(await frames(replica, request("a", [1], 3))) == text_of([1], 3)
        await lost.aclose()


async def test_requests_beyond_a_servers_queue_are_not_refused():
    async with running() as replica:
        streams = [replica.generate(messages.encode_request(request(str(i), [i], 2))) for i in range(9)]
        for i, stream in enumerate(streams):
            assert tokens([messages.decode_outputs(frame) async for frame in stream]) == text_of([i], 2)


async def test_a_task_has_a_result_or_a_failure():
    async with running() as replica:
        end = messages.decode_task_end(await replica.run(messages.encode(EraseSlot([1, 2]))))
        assert (end.result.n_tokens, end.failure) == (2, None)
        end = messages.decode_task_end(await replica.run(messages.encode(Embed([[0]]))))
        assert (end.result, end.failure.kind) == (None, "ConfigError")


async def test_routing_stats_have_the_computed_prompts():
    async with running() as replica:
        call = request("a", list(range(40)), 8)
        await frames(replica, call)
        others = RecentBlocks()
        others.add(replica.record_routing_stats()["blocks"])
        assert others.matching(prefix_keys(call, text_of(call.prompt, 8))) == 48


async def test_replica_ends_when_its_engine_fails_for_good():
    async with running() as replica:
        replica.check_health()
        assert replica.exits == []
        replica.client._supervisor.fail("it keeps failing")
        await until(lambda: replica.client.state == "failed")
        replica.check_health()
        assert replica.exits == [1]
