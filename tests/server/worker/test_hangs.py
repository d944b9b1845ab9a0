"""An engine process that is stopped, hangs in a step or while loading, or cannot be started is replaced."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time

import pytest

from engine.types import FinishReason
from server.worker.errors import LoadFailed
from server.worker.requests import recovery
from server.worker.supervision import supervisor
from server.worker.supervision.child import EngineChild
from support.fakes import engine_process as fake
from support.fakes.engine_client import collect, kill, make_client, request, run, running, until
from support.fakes.engine_process import text_of


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(recovery, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(supervisor, "SPAWN_RETRY_S", 0.02)


def test_a_stopped_engine_is_reported_and_replaced_and_its_streams_continue(caplog):
    async def main():
        async with running("--step-ms", "3", engine_timeout_s=2.0) as client:
            prompts = [[i] for i in range(3)]
            streams = [client.generate(request(f"r{i}", prompt, 120)) for i, prompt in enumerate(prompts)]
            tasks = [asyncio.create_task(collect(stream)) for stream in streams]
            await until(lambda: all(info.n_generated > 20 for info in client.requests()))
            pid = client.pid
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: client.stalled)
            assert (client.state, client.pid) == ("ready", pid)
            results = await asyncio.gather(*tasks)
            assert [tokens for tokens, _, _ in results] == [text_of(prompt, 120) for prompt in prompts]
            assert client.restarts >= 1
            await until(lambda: client.state == "ready" and not client.stalled)

    run(main)
    assert "the engine has sent no heartbeat for" in caplog.text
    assert "and was killed" in caplog.text


def test_stopped_idle_engine_is_replaced_before_a_request():
    async def main():
        async with running(engine_timeout_s=2.0) as client:
            os.kill(client.pid, signal.SIGSTOP)
            await until(lambda: client.restarts and client.state == "ready")
            assert (await collect(client.generate(request("a", [1], 5))))[0] == text_of([1], 5)

    run(main)


@pytest.mark.e2e
def test_outputs_of_a_process_given_up_are_ignored(monkeypatch):
    """It may be woken up (SIGCONT) between the decision and its end."""
    kill_now = EngineChild.kill

    def wake_and_kill(child: EngineChild) -> None:
        os.kill(child.pid, signal.SIGCONT)
        asyncio.get_running_loop().call_later(0.3, kill_now, child)

    monkeypatch.setattr(EngineChild, "kill", wake_and_kill)

    async def main():
        async with running("--step-ms", "3", engine_timeout_s=2.0) as client:
            stream = client.generate(request("a", [1], 300))
            for _ in range(5):
                await anext(stream)
            os.kill(client.pid, signal.SIGSTOP)
            await until(lambda: client.state == "restarting")
            n = client.requests()[0].n_generated
            supervised = client._supervisor
            await until(lambda: supervised._child is None or client.restarts)
            assert client.restarts or client.requests()[0].n_generated == n
            tokens = text_of([1], 300)
            assert (await collect(stream))[0] == tokens[5:]

    run(main)


@pytest.mark.e2e
def test_hanging_request_is_given_up_after_the_second_hang(caplog):
    async def main():
        async with running(engine_timeout_s=0.5) as client:
            stream = client.generate(request("a", [fake.HANG], 5))
            await until(lambda: client.stalled)
            tokens, finish, error = await collect(stream)
            assert (tokens, finish) == ([], FinishReason.ERROR)
            assert "more than once" in error
            assert (await collect(client.generate(request("b", [1], 5))))[0] == text_of([1], 5)

    run(main)
    assert "one step of the engine has taken" in caplog.text


@pytest.mark.e2e
def test_spinning_step_is_given_up_like_an_idle_one(caplog):
    async def main():
        async with running(engine_timeout_s=0.5) as client:
            assert (await collect(client.generate(request("a", [1], 5))))[0] == text_of([1], 5)
            other = client.generate(request("b", [1], 5))
            stream = client.generate(request("c", [fake.SPIN], 5))
            await until(lambda: client.stalled)
            tokens, finish, error = await collect(stream)
            assert (tokens, finish) == ([], FinishReason.ERROR)
            assert "more than once" in error
            assert (await collect(other))[0] == text_of([1], 5)

    run(main)
    assert "one step of the engine has taken" in caplog.text


def test_engine_waiting_for_requests_is_not_stalled():
    async def main():
        async with running() as client:
            await collect(client.generate(request("a", [1], 5)))
            liveness = client._supervisor._liveness
            last_message_at = liveness._last_message_at
            await until(lambda: liveness._last_message_at > last_message_at)  # a heartbeat
            client._supervisor.check_alive()
            assert not client.stalled
            assert client.restarts == 0

    run(main)


def test_time_limit_of_a_request_is_enforced_while_the_engine_hangs():
    async def main():
        async with running("--step-ms", "3", engine_timeout_s=600.0) as client:
            deadline_ms = (time.monotonic() + 3600) * 1000
            stream = client.generate(request("a", [1], 100_000, deadline_ms=deadline_ms))
            await anext(stream)
            os.kill(client.pid, signal.SIGSTOP)
            stream.request.deadline_ms = time.monotonic() * 1000
            tokens, finish, _ = await collect(stream)
            assert finish is FinishReason.TIMEOUT
            assert tokens == text_of([1], 1 + len(tokens))[1:]
            os.kill(client.pid, signal.SIGCONT)
            assert (await collect(client.generate(request("b", [1], 5))))[0] == text_of([1], 5)
            assert client.restarts == 0

    run(main)


@pytest.mark.e2e
def test_first_load_that_hangs_is_retried_once(tmp_path, caplog):
    async def main():
        async with running("--dir", str(tmp_path), "--hang-loading", "0", engine_timeout_s=1.0) as client:
            assert (await collect(client.generate(request("a", [1], 5))))[0] == text_of([1], 5)
        client = make_client(
            "--dir", str(tmp_path), "--hang-loading", *map(str, range(1, 9)), engine_timeout_s=1.0
        )
        with pytest.raises(LoadFailed, match=r"loading has neither computed nor read .* and was killed"):
            await client.start()
        await client.stop()

    run(main)
    assert len((tmp_path / "starts").read_text().split()) == 4


@pytest.mark.e2e
def test_a_load_that_hangs_after_a_crash_is_replaced(tmp_path):
    async def main():
        async with running("--dir", str(tmp_path), "--hang-loading", "1", engine_timeout_s=1.0) as client:
            stream = client.generate(request("a", [1], 300))
            await anext(stream)
            kill(client)
            assert (await collect(stream))[0] == text_of([1], 300)[1:]
            assert client.restarts == 2

    run(main)


@pytest.mark.parametrize("when", ["at the first start", "after a crash"])
def test_process_that_cannot_be_started_is_retried(when, monkeypatch, caplog):
    spawn = EngineChild.spawn
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3

    def spawn_later(*arguments):
        if failures:
            raise failures.pop()
        return spawn(*arguments)

    async def main():
        if when == "at the first start":
            monkeypatch.setattr(EngineChild, "spawn", spawn_later)
        async with running() as client:
            stream = client.generate(request("a", [1], 200))
            await anext(stream)
            monkeypatch.setattr(EngineChild, "spawn", spawn_later)
            kill(client)
            assert (await collect(stream))[0] == text_of([1], 200)[1:]
            assert client.state == "ready"

    run(main)
    assert "cannot start an engine process: Too many open files; trying again in 0.0 s" in caplog.text
