"""Work that is no stream: results, bounds, clients that leave, and engines that die, with a real child."""

from __future__ import annotations

import asyncio

import pytest

from engine.tasks.types import Embed, Erased, EraseSlot
from server.worker.errors import EngineUnavailable, QueueFull, TaskFailed
from support.fakes.engine_client import collect, kill, request, run, running, until
from support.fakes.engine_process import ABORT, DIE_IN_PREFILL, PARALLEL, text_of, vector_of
from support.quick import every

INPUTS = [[5, 6, 7], [8], [9, 9]]


def test_result_arrives_whole():
    async def main():
        async with running() as client:
            result = await client.run(Embed(INPUTS))
            assert result.vectors == [vector_of(tokens) for tokens in INPUTS]
            assert result.width == 3
            assert await client.run(EraseSlot([1, 2])) == Erased(2)

    run(main)


def test_result_larger_than_a_frame_arrives_in_several():
    async def main():
        async with running() as client:
            n = 9 << 20
            result = await client.run(Embed([[n], [5], [n + 1]], "none"))
            assert [len(vector) for vector in result.vectors] == [n, 5, n + 1]

    run(main)


def test_tasks_and_streams_take_turns():
    async def main():
        async with running("--step-ms", "2") as client:
            stream = asyncio.create_task(collect(client.generate(request("a", [1, 2], 60))))
            work = asyncio.create_task(client.run(Embed([[i] for i in range(1, 61)])))
            await asyncio.wait((stream, work), return_when=asyncio.FIRST_COMPLETED)
            # Each step of one is followed by one of the other: they end at nearly the same time.
            n_generated = sum(info.n_generated for info in client.requests()) or 60
            assert n_generated > 50
            assert (await stream)[0] == text_of([1, 2], 60)
            assert (await work).vectors == [vector_of([i]) for i in range(1, 61)]

    run(main)


def test_task_the_engine_refuses_fails_with_its_reason():
    async def main():
        async with running() as client:
            with pytest.raises(TaskFailed, match="refused") as failed:
                await client.run(Embed([[0]]))
            assert failed.value.kind == "ConfigError"
            assert (await client.run(Embed([[1]]))).width == 3

    run(main)


def test_the_queue_is_bounded():
    async def main():
        async with running("--step-ms", "20", max_queue=1) as client:
            calls = [asyncio.create_task(client.run(Embed([[1]] * 9))) for _ in range(PARALLEL + 1)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                await client.run(Embed([[1]]))
            with pytest.raises(QueueFull):
                client.generate(request("a", [1], 1))
            await asyncio.gather(*calls)
            await client.run(Embed([[1]]))

    run(main)


def test_cancelled_wait_cancels_the_task(tmp_path):
    async def main():
        async with running("--step-ms", "20", "--dir", str(tmp_path)) as client:
            calls = tmp_path / "calls"
            task = asyncio.create_task(client.run(Embed([[1]] * 1000)))
            await until(lambda: calls.exists() and "task " in calls.read_text())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: "drop " in calls.read_text())
            await client.run(Embed([[1]]))
            assert not client.stalled

    run(main)


def test_task_is_run_again_after_a_crash(tmp_path):
    async def main():
        async with running("--step-ms", "5", "--dir", str(tmp_path)) as client:
            inputs = [[i] for i in range(1, 40)]
            task = asyncio.create_task(client.run(Embed(inputs)))
            calls = tmp_path / "calls"
            await until(lambda: calls.exists() and "task " in calls.read_text())
            await asyncio.sleep(0.05)
            kill(client)
            assert (await task).vectors == [vector_of(tokens) for tokens in inputs]
            assert client.restarts == 1
            assert calls.read_text().count("task ") == 2

    run(main)


@pytest.mark.parametrize("deadly", every(2, [DIE_IN_PREFILL, ABORT]))
def test_a_task_that_kills_the_engine_fails_and_the_others_continue(deadly):
    async def main():
        async with running("--step-ms", "5") as client:
            stream = asyncio.create_task(collect(client.generate(request("a", [1, 2], 40))))
            good = asyncio.create_task(client.run(Embed([[3], [4]] * 10)))
            with pytest.raises(TaskFailed, match="died more than once") as failed:
                await client.run(Embed([[deadly]]))
            assert failed.value.kind == "EngineDied"
            assert (await stream)[0] == text_of([1, 2], 40)
            assert (await good).vectors == [vector_of([3]), vector_of([4])] * 10
            assert client.state == "ready"

    run(main)


def test_engine_failed_for_good_fails_waiting_tasks(tmp_path):
    async def main():
        async with running("--step-ms", "20", "--dir", str(tmp_path), "--fail-from", "1") as client:
            task = asyncio.create_task(client.run(Embed([[1]] * 1000)))
            await until(lambda: (tmp_path / "calls").exists())
            kill(client)
            with pytest.raises(EngineUnavailable):
                await task
            with pytest.raises(EngineUnavailable):
                await client.run(Embed([[1]]))

    run(main)


def test_stop_waits_for_tasks_then_cancels_them():
    async def main():
        async with running("--step-ms", "10") as client:
            short = asyncio.create_task(client.run(Embed([[1]] * 5)))
            await asyncio.sleep(0)
            await client.stop(drain_s=20)
            assert len((await short).vectors) == 5
        async with running("--step-ms", "10") as client:
            long = asyncio.create_task(client.run(Embed([[1]] * 5000)))
            await asyncio.sleep(0.02)
            await client.stop(drain_s=0.05)
            with pytest.raises(EngineUnavailable, match="shutting down"):
                await long

    run(main)
