"""The engine process is killed, hangs, aborts and comes back: streams go on to the same text."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import uvloop

from engine.tasks.types import EraseSlot
from engine.types import FinishReason, InferenceParameters
from server.worker.errors import EngineUnavailable
from server.worker.requests import recovery
from server.worker.supervision import supervisor
from support.fakes import engine_process as fake
from support.fakes.engine_client import FAKE, alive, collect, kill, request, run, running, until
from support.fakes.engine_process import text_of
from support.quick import every

LOOPS = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(recovery, "FIRST_DELAY_S", 0.02)


class Clock:
    """The server's clock, which can be set ahead of the engine's."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def submitted(tmp_path: Path) -> list[list[str]]:
    """id, number of tokens generated before, seed: of each request that reached an engine."""
    lines = (tmp_path / "calls").read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith("submit")]


@LOOPS
def test_kill_9_in_the_middle_of_a_stream_four_streams_continue(loop, tmp_path):
    async def main():
        async with running("--step-ms", "3", "--dir", str(tmp_path)) as client:
            prompts = [[i] for i in range(4)]
            streams = [client.generate(request(f"r{i}", prompt, 120)) for i, prompt in enumerate(prompts)]
            tasks = [asyncio.create_task(collect(stream)) for stream in streams]
            await until(lambda: all(info.n_generated > 20 for info in client.requests()))
            kill(client)
            await until(lambda: client.state == "restarting")
            late = asyncio.create_task(collect(client.generate(request("late", [9], 10))))
            results = await asyncio.gather(*tasks)
            assert [tokens for tokens, _, _ in results] == [text_of(prompt, 120) for prompt in prompts]
            assert {finish for _, finish, _ in results} == {FinishReason.LENGTH}
            assert (await late)[0] == text_of([9], 10)
            assert (client.restarts, client.state) == (1, "ready")
            # They went on where they were, with the seed of the beginning.
            first, second = submitted(tmp_path)[:4], submitted(tmp_path)[4:]
            assert all(int(n) > 20 for id, n, _ in second if id != "late")
            assert [x[2] for x in first] == [x[2] for x in second if x[0] != "late"]
            assert len({x[2] for x in first}) == 4

    run(main, loop)


def test_the_timings_of_a_resumed_stream_match_those_of_the_whole():
    async def main():
        async with running("--step-ms", "2") as client:
            stream = client.generate(request("a", [1, 2, 3], 100))
            first = await anext(stream)
            await until(lambda: client.requests()[0].n_generated > 30)
            kill(client)
            reported = [first.timings] + [e.timings async for e in stream]
            assert [t for t in reported if t is not None] == [reported[0], reported[-1]]
            assert (reported[0].prompt_n, reported[-1].prompt_n, reported[-1].predicted_n) == (3, 3, 100)
            assert reported[-1].predicted_ms > 100

    run(main)


def test_mirostat_state_survives_a_restart():
    async def main():
        async with running("--step-ms", "2") as client:
            task = asyncio.create_task(collect(client.generate(request("a", [1], 100, mirostat=2))))
            await until(lambda: client.requests()[0].n_generated > 20)
            kill(client)
            assert (await task)[0] == text_of([1], 100, mirostat=True)

    run(main)


def test_kill_9_twice_streams_continue(tmp_path):
    async def main():
        async with running("--step-ms", "3", "--dir", str(tmp_path)) as client:
            tasks = [
                asyncio.create_task(collect(client.generate(request(f"r{i}", [i], 150)))) for i in range(3)
            ]
            for restarts in (0, 1):
                at = 20 + 40 * restarts
                await until(
                    lambda at=at, n=restarts: (
                        client.restarts == n and all(info.n_generated > at for info in client.requests())
                    )
                )
                kill(client)
            results = await asyncio.gather(*tasks)
            assert [tokens for tokens, _, _ in results] == [text_of([i], 150) for i in range(3)]
            assert client.restarts == 2

    run(main)


def test_kill_9_during_a_long_prompt_stream_continues():
    async def main():
        async with running("--step-ms", "10") as client:
            prompt = list(range(600))  # clear of the tokens with side effects
            task = asyncio.create_task(collect(client.generate(request("a", prompt, 5, n_batch=20))))
            await until(lambda: client.requests()[0].state == "prefill")
            kill(client)
            assert (await task)[0] == text_of(prompt, 5)

    run(main)


def test_kill_9_while_reloading_stream_continues(tmp_path):
    async def main():
        async with running("--step-ms", "2", "--dir", str(tmp_path), "--die-loading", "1", "2") as client:
            task = asyncio.create_task(collect(client.generate(request("a", [1], 80))))
            await until(lambda: client.requests()[0].n_generated > 20)
            kill(client)
            assert (await task)[0] == text_of([1], 80)
            assert client.restarts == 3

    run(main)


def test_a_paused_stream_stays_paused_after_a_restart(tmp_path):
    async def main():
        async with running("--dir", str(tmp_path)) as client:
            slow = client.generate(request("slow", [1], 300))
            calls = tmp_path / "calls"
            await until(lambda: calls.exists() and "pause slow" in calls.read_text())
            kill(client)
            await until(lambda: client.restarts == 1 and client.state == "ready")
            await until(lambda: calls.read_text().count("pause slow") == 2)
            await client.run(EraseSlot([1]))  # its result comes after all that was on the way
            assert len(slow._queue) < 100
            assert (await collect(slow))[0] == text_of([1], 300)

    run(main)


def test_idle_engine_is_restarted():
    async def main():
        async with running() as client:
            kill(client)
            await until(lambda: client.restarts == 1 and client.state == "ready")
            assert (await collect(client.generate(request("a", [1], 5))))[0] == text_of([1], 5)

    run(main)


@pytest.mark.parametrize("token", every(3, [fake.DIE_IN_PREFILL, fake.DIE_AT_TOKEN, fake.BUG]))
def test_a_request_that_kills_the_engine_is_given_up(token, caplog):
    async def main():
        async with running("--step-ms", "2") as client:
            tokens, finish, error = await collect(client.generate(request("bad", [5, token], 50)))
            assert finish is FinishReason.ERROR
            assert "died more than once while it computed this request" in error
            assert tokens == text_of([5, token], 3 if token == fake.DIE_AT_TOKEN else 0)
            await until(lambda: client.state == "ready")
            assert (await collect(client.generate(request("good", [1], 20))))[0] == text_of([1], 20)
            return error

    run(main)


def test_other_requests_survive_one_that_kills_the_engine():
    async def main():
        async with running("--step-ms", "2") as client:
            good = [client.generate(request(f"g{i}", list(range(30)), 40, n_batch=4)) for i in range(2)]
            bad = client.generate(request("bad", [fake.DIE_IN_PREFILL], 40))
            later = [client.generate(request(f"l{i}", [i], 20)) for i in range(4)]
            results = await asyncio.gather(*map(collect, [*good, bad, *later]))
            assert [r[0] for r in results[:2]] == [text_of(list(range(30)), 40)] * 2
            assert results[2][1] is FinishReason.ERROR
            assert [r[0] for r in results[3:]] == [text_of([i], 20) for i in range(4)]
            assert client.state == "ready"

    run(main)


def test_an_engine_that_keeps_dying_fails_for_good(tmp_path):
    async def main():
        every = map(str, range(1, 20))
        async with running("--dir", str(tmp_path), "--die-loading", *every) as client:
            stream = client.generate(request("a", [1], 100_000))
            await anext(stream)
            kill(client)
            with pytest.raises(EngineUnavailable, match="has failed"):
                await collect(stream)
            assert client.state == "failed"
            assert "the engine keeps failing" in client.detail
            assert "killed by SIGKILL" in client.detail
            with pytest.raises(EngineUnavailable, match="has failed"):
                client.generate(request("b", [1], 1))
            assert client.requests() == []
            assert len((tmp_path / "starts").read_text().split()) == 1 + recovery.MAX_CRASHES

    run(main)


def test_failed_reload_is_retried_then_given_up(tmp_path):
    async def main():
        async with running("--dir", str(tmp_path), "--fail-from", "1") as client:
            stream = client.generate(request("a", [1], 100_000))
            await anext(stream)
            kill(client)
            with pytest.raises(EngineUnavailable, match="has failed"):
                await collect(stream)
            assert "the file ends inside tensor 'x'" in client.detail

    run(main)


def test_reload_without_memory_is_retried_until_there_is_some(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "PASSING_RETRY_S", 0.02)
    n = 2 * recovery.MAX_CRASHES

    async def main():
        starts = map(str, range(1, n + 1))
        async with running("--dir", str(tmp_path), "--no-memory", *starts) as client:
            stream = client.generate(request("a", [1], 500))
            tokens = (await anext(stream)).tokens
            assert not client.blocked
            kill(client)
            await until(lambda: client.blocked)
            more, finish, _ = await collect(stream)
            assert [token.id for token in tokens] + more == text_of([1], 500)
            assert finish is FinishReason.LENGTH
            assert not client.blocked
            assert len((tmp_path / "starts").read_text().split()) == n + 2

    run(main)
    assert caplog.text.count("CPU has 20.1 MiB free; retrying every") == 1


def test_a_reload_without_memory_is_given_up_where_another_load_could_make_room(tmp_path):
    async def main():
        starts = map(str, range(1, 20))
        async with running("--dir", str(tmp_path), "--no-memory", *starts) as client:
            client.waits_for_memory = False
            stream = client.generate(request("a", [1], 100_000))
            await anext(stream)
            kill(client)
            with pytest.raises(EngineUnavailable, match="has failed"):
                await collect(stream)
            assert "CPU has 20.1 MiB free" in client.detail

    run(main)


def test_disconnect_cancel_and_deadline_take_effect_while_there_is_no_engine(tmp_path):
    async def main():
        clock = Clock()
        async with running("--dir", str(tmp_path), "--load-ms", "300", clock=clock) as client:
            leaves = client.generate(request("leaves", [1], 10_000))
            cancelled = client.generate(request("cancelled", [2], 10_000))
            deadline_ms = (time.monotonic() + 3600) * 1000  # which the engine does not reach
            late = client.generate(request("late", [3], 100_000, deadline_ms=deadline_ms))
            await asyncio.gather(anext(leaves), anext(cancelled), anext(late))
            kill(client)
            await until(lambda: client.state == "restarting")
            clock.ahead_s = 7200.0
            client.on_tick()
            await leaves.aclose()
            client.cancel("cancelled")
            assert (await collect(cancelled))[1] is FinishReason.CANCELLED
            assert (await collect(late))[1] is FinishReason.TIMEOUT
            await until(lambda: client.state == "ready")
            assert client.requests() == []
            assert {"leaves", "cancelled"}.isdisjoint(x[0] for x in submitted(tmp_path)[3:])

    run(main)


def test_abort_is_explained_by_its_last_log_line(caplog):
    async def main():
        async with running() as client:
            _, finish, error = await collect(client.generate(request("a", [fake.ABORT], 5)))
            assert finish is FinishReason.ERROR
            assert "ggml" not in error  # a client need not know

    run(main)
    assert "killed by SIGABRT; last log: ggml.c:1234: GGML_ASSERT(ne0 == 1) failed" in caplog.text


def test_unreadable_frames_end_the_process():
    async def main():
        async with running() as client:
            os.kill(client.pid, signal.SIGSTOP)  # what arrives now is ours
            child = client._supervisor._child
            pid = client.pid
            child._transport.get_protocol().data_received(b"\xff\xff\xff\xff")
            await until(lambda: client.restarts == 1 and client.state == "ready")
            assert not alive(pid)

    run(main)


def test_given_seed_is_kept_after_a_restart(tmp_path):
    async def main():
        async with running("--dir", str(tmp_path)) as client:
            requested = request("a", [1], 3)
            requested.params = InferenceParameters(max_tokens=3, seed=7)
            await collect(client.generate(requested))
            assert submitted(tmp_path) == [["a", "0", "7"]]

    run(main)


def test_fake_engine_generates_text_that_depends_on_the_prompt():
    assert FAKE.exists()
    assert text_of([1], 50) != text_of([2], 50)
    assert text_of([1], 5)[4:] == text_of([1, *text_of([1], 4)], 1)
