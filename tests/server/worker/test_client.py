"""The client of an engine process: streams, bounds and slow readers, with a real child process."""

from __future__ import annotations

import asyncio
import gc
import os
import time

import pytest
import uvloop

from engine.tasks.types import EraseSlot
from engine.types import FinishReason
from server.worker.errors import EngineUnavailable, LoadFailed, QueueFull
from server.worker.requests import stream as streams
from support.fakes.engine_client import alive, collect, kill, make_client, request, run, running, until
from support.fakes.engine_process import N_CTX, PARALLEL, text_of

LOOPS = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@LOOPS
def test_client_loads_a_model_and_streams(loop):
    async def main():
        client = make_client("--load-ms", "200")
        assert (client.state, client.progress) == ("loading", 0.0)
        starting = asyncio.create_task(client.start())
        await until(lambda: client.progress > 0)
        assert client.detail == f"layer {client.progress * 10:.0f}"
        await starting
        assert (client.state, client.progress) == ("ready", 1.0)
        assert (client.n_ctx, client.max_batch_size) == (N_CTX, 64)
        assert client.tokenizer == "tokenizer"
        tokens, finish, _ = await collect(client.generate(request("a", [1, 2, 3], 20)))
        assert tokens == text_of([1, 2, 3], 20)
        assert finish is FinishReason.LENGTH
        pid = client.pid
        await client.stop()
        assert client.state == "stopped"
        assert not alive(pid)
        with pytest.raises(EngineUnavailable, match="shutting down"):
            client.generate(request("b", [1], 1))

    run(main, loop)


@LOOPS
def test_concurrent_streams_get_their_own_text(loop):
    async def main():
        async with running(max_queue=64) as client:
            prompts = {f"r{i}": [i, i + 1] for i in range(20)}
            results = await asyncio.gather(
                *(collect(client.generate(request(id, prompt, 30))) for id, prompt in prompts.items())
            )
            for (tokens, _, _), prompt in zip(results, prompts.values(), strict=True):
                assert tokens == text_of(prompt, 30)
            assert client.requests() == []
            await until(lambda: client.stats.predicted_tokens == 600 and client.stats.running == 0)
            assert client.stats.cells_used == 0

    run(main, loop)


def test_progress_and_timings_of_a_long_prompt_arrive():
    async def main():
        async with running("--step-ms", "5") as client:
            stream = client.generate(request("a", list(range(100)), 3, n_batch=10))
            assert client.requests()[0].state == "queued"
            emissions = []
            async for emission in stream:
                emissions.append(emission)
                if len(emissions) == 1:
                    info = client.requests()[0]
                    assert (info.id, info.model, info.state) == ("a", "fake", "prefill")
                    assert (info.n_prompt, info.n_generated) == (100, 0)
                elif emission.tokens and emission.finish is None:
                    assert client.requests()[0].state == "decode"
            assert [e.processed for e in emissions if e.processed] == list(range(10, 100, 10))
            assert emissions[-1].timings.n_batch == 10

    run(main)


def test_request_the_engine_refuses_does_not_affect_others():
    async def main():
        async with running() as client:
            good = client.generate(request("good", [1], 50))
            tokens, finish, error = await collect(client.generate(request("bad", [1] * N_CTX, 5)))
            assert (tokens, finish) == ([], FinishReason.ERROR)
            assert str(N_CTX) in error
            assert (await collect(good))[0] == text_of([1], 50)

    run(main)


@LOOPS
def test_closing_a_stream_frees_it_within_a_step(loop, tmp_path):
    async def main():
        async with running("--step-ms", "20", "--dir", str(tmp_path)) as client:
            stream = client.generate(request("a", [1], 10_000))
            other = client.generate(request("b", [2], 30))
            for _ in range(3):
                await anext(stream)
            steps = (await _fresh_stats(client)).steps
            await stream.aclose()
            assert [info.id for info in client.requests()] == ["b"]
            assert (await collect(other))[0] == text_of([2], 30)
            await until(lambda: client.stats.running == 0)
            (line,) = [x for x in (tmp_path / "calls").read_text().splitlines() if x.startswith("cancel")]
            assert int(line.split()[2]) <= steps + 2 + 5  # stats are at most 5 steps old
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    async def _fresh_stats(client):
        before = client.stats
        await until(lambda: client.stats is not before)
        return client.stats

    run(main, loop)


def test_close_of_a_stream_never_read_frees_it():
    async def main():
        async with running() as client:
            stream = client.generate(request("a", [1], 10_000))
            await stream.aclose()
            assert client.requests() == []
            assert await collect(stream) == ([], None, None)

    run(main)


def test_cancelled_wait_for_an_output_loses_nothing():
    async def main():
        async with running("--step-ms", "3") as client:
            stream = client.generate(request("a", [1], 40))
            tokens = []
            while True:
                try:
                    emission = await asyncio.wait_for(anext(stream), 0.002)
                except TimeoutError:
                    continue
                tokens += [token.id for token in emission.tokens]
                if emission.finish:
                    break
            assert tokens == text_of([1], 40)

    run(main)


def test_cancel_by_id_ends_the_stream():
    async def main():
        async with running("--step-ms", "2") as client:
            stream = client.generate(request("a", [1], 10_000))
            await anext(stream)
            assert client.cancel("a")
            assert not client.cancel("a")
            assert not client.cancel("unknown")
            assert (await collect(stream))[1:] == (FinishReason.CANCELLED, "cancelled")
            assert client.requests() == []
            again = await collect(client.generate(request("b", [1], 5)))
            assert again[0] == text_of([1], 5)

    run(main)


def test_full_queue_refuses_with_a_retry_delay():
    async def main():
        async with running("--step-ms", "2", max_queue=3) as client:
            await collect(client.generate(request("first", [9], 10)))
            admitted = [client.generate(request(f"r{i}", [i], 50 if i else 10)) for i in range(PARALLEL + 3)]
            with pytest.raises(QueueFull) as caught:
                client.generate(request("late", [1], 5))
            assert caught.value.waiting == 3
            assert 1 <= caught.value.retry_after_s <= 120
            with pytest.raises(QueueFull):
                client.ensure_room(1)
            await collect(admitted[0])
            client.ensure_room(1)
            with pytest.raises(QueueFull):
                client.ensure_room(2)
            results = await asyncio.gather(*map(collect, admitted[1:]))
            assert [tokens for tokens, _, _ in results] == [text_of([i], 50) for i in range(1, PARALLEL + 3)]

    run(main)


def test_request_ids_in_use_are_refused():
    async def main():
        async with running() as client:
            stream = client.generate(request("a", [1], 1000))
            with pytest.raises(ValueError, match="already running"):
                client.generate(request("a", [1], 5))
            await stream.aclose()

    run(main)


@LOOPS
def test_a_slow_reader_is_paused_and_continues(loop, tmp_path):
    async def main():
        async with running("--dir", str(tmp_path)) as client:
            slow = client.generate(request("slow", [1], 500))
            await until(lambda: client.requests()[0].state == "paused")
            calls = tmp_path / "calls"
            await until(lambda: "pause slow" in calls.read_text())
            await client.run(EraseSlot([1]))  # its result comes after all that was on the way
            queued = len(slow._queue)
            assert queued <= streams.HIGH_WATER + 8
            tokens, _, _ = await collect(client.generate(request("quick", [2], 300)))
            assert tokens == text_of([2], 300)
            assert len(slow._queue) == queued
            tokens, finish, _ = await collect(slow)
            assert tokens == text_of([1], 500)
            assert finish is FinishReason.LENGTH
            lines = calls.read_text()
            assert lines.count("pause slow") == lines.count("resume slow") >= 1

    run(main, loop)


def test_reader_that_stops_reading_is_given_up():
    async def main():
        async with running(send_timeout_s=0.3) as client:
            slow = client.generate(request("slow", [1], 100_000))
            await until(lambda: client.requests() == [])
            await until(lambda: client.stats.running == 0)
            tokens, finish, error = await collect(slow)
            assert tokens == text_of([1], len(tokens))
            assert finish is FinishReason.CANCELLED
            assert error == "the client did not read for 0.3 s"

    run(main)


def test_a_deadline_passes_while_the_stream_is_paused():
    async def main():
        async with running() as client:
            deadline = (time.monotonic() + 0.5) * 1000
            stream = client.generate(request("a", [1], 100_000, deadline_ms=deadline))
            await until(lambda: client.requests()[:1] and client.requests()[0].state == "paused")
            await until(lambda: client.requests() == [])
            assert (await collect(stream))[1] is FinishReason.TIMEOUT

    run(main)


@pytest.mark.parametrize(
    ("arguments", "path", "kind", "message"),
    [
        (["--fail-from", "0"], "fake.gguf", "ModelError", "the file ends inside tensor 'x'"),
        ([], "a.missing", "FileNotFoundError", "a.missing: No such file or directory"),
        (["--die-loading", "0"], "fake.gguf", "EngineDied", "killed by SIGKILL (out of memory?)"),
    ],
)
def test_model_that_cannot_load_is_an_error_without_retries(tmp_path, arguments, path, kind, message):
    async def main():
        client = make_client(*arguments, "--dir", str(tmp_path), path=path)
        with pytest.raises(LoadFailed) as caught:
            await client.start()
        assert caught.value.kind == kind
        assert message in str(caught.value)
        assert client.state == "failed"
        assert message in client.detail
        with pytest.raises(LoadFailed):
            await client.wait_loaded()
        with pytest.raises(EngineUnavailable, match="has failed"):
            client.generate(request("a", [1], 1))
        await client.stop()
        pids = (tmp_path / "starts").read_text().split()
        assert len(pids) == 1
        assert not alive(int(pids[0]))

    run(main)


def test_vocabulary_that_cannot_load_is_an_error():
    def broken(path):
        raise ValueError("no tokens in this file")

    async def main():
        client = make_client("--load-ms", "500", load_tokenizer=broken)
        with pytest.raises(LoadFailed, match="no tokens in this file"):
            await client.start()
        await client.stop()

    run(main)


def test_an_engine_that_cannot_be_started_is_an_error():
    async def main():
        client = make_client(python="/nonexistent/python")
        with pytest.raises(LoadFailed, match="cannot start an engine process"):
            await client.start()
        await client.stop()

    run(main)


def test_requests_while_loading_are_refused():
    async def main():
        client = make_client("--load-ms", "300")
        starting = asyncio.create_task(client.start())
        await until(lambda: client.progress > 0.3)
        with pytest.raises(EngineUnavailable, match=r"still loading \(\d+%\)"):
            client.generate(request("a", [1], 1))
        await starting
        assert (await collect(client.generate(request("a", [1], 2))))[0] == text_of([1], 2)
        await client.stop()

    run(main)


def test_the_process_may_be_spawned_before_the_loop_runs():
    client = make_client("--load-ms", "50")
    client.spawn()
    pid = client.pid

    async def main():
        await client.start()
        assert client.pid == pid
        await client.stop()

    run(main)


def test_stopped_client_leaves_no_open_files_or_processes(tmp_path):
    async def main():
        async with running() as client:
            await collect(client.generate(request("a", [1], 5)))

    import psutil

    run(main)
    gc.collect()
    before, children = psutil.Process().num_fds(), psutil.Process().children()  # the tests' template process
    for _ in range(3):
        run(main)
    gc.collect()
    assert psutil.Process().num_fds() == before
    assert psutil.Process().children() == children


def test_a_replaced_file_ends_the_engine_and_its_requests(tmp_path, caplog):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one model")

    async def main():
        async with running("--step-ms", "20", path=str(path)) as client:
            stream = client.generate(request("a", [1, 2, 3], 2000))
            await anext(aiter(stream))
            path.with_suffix(".new").write_bytes(b"another 1")
            path.with_suffix(".new").replace(path)
            kill(client)
            with pytest.raises(EngineUnavailable):
                await collect(stream)
            assert (client.state, client.replaced, client.restarts) == ("failed", True, 0)

    run(main)
    assert "the file was replaced since it was loaded" in caplog.text


def test_a_file_that_was_only_touched_is_the_same_model(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one model")

    async def main():
        async with running(path=str(path)) as client:
            os.utime(path, (1, 1))
            kill(client)
            await until(lambda: client.restarts == 1 and client.state == "ready")
            assert not client.replaced

    run(main)


def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one model")

    def load(_path: str) -> str:
        path.write_bytes(b"another, longer one")
        return "tokenizer"

    async def main():
        client = make_client(path=str(path), load_tokenizer=load)
        with pytest.raises(LoadFailed, match="changed while it was loaded"):
            await client.start()
        assert client.state == "failed"
        await client.stop()

    run(main)
