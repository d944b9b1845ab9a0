"""The engine process by itself: frames in and out, its end, and that it ends with its server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvloop

from engine.config import ModelParameters
from engine.types import FinishReason
from server.worker import messages as wire
from server.worker import transport
from server.worker.errors import EngineUnavailable
from server.worker.process.main import EngineProcess
from support.fakes import engine_process as fake
from support.fakes.engine_client import FAKE, alive, collect, kill, make_client, request, run, running, until
from support.fakes.engine_process import text_of
from support.quick import every
from support.waiting import wait_until

LOOPS = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


class Bare:
    """An engine process at the end of a plain socket."""

    def __init__(self, *arguments: str) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        with theirs:
            command = [sys.executable, str(FAKE), *arguments, "--fd", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        self.reader = wire.server_reader()
        self.messages: list[wire.ToServer] = []

    def send(self, *messages: wire.ToEngine) -> None:
        self.sock.sendall(b"".join(map(wire.encode, messages)))

    def receive(self, kind: type) -> wire.ToServer:
        """The next message of a kind; others are dropped."""
        while True:
            while self.messages:
                message = self.messages.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.sock.recv(1 << 16)
            assert data, "the process has left"
            self.messages += self.reader.feed(data)

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=20)
        self.sock.close()
        return self.process.returncode, errors.decode()


@pytest.fixture
def bare():
    started = []

    def start(*arguments: str, load: bool = True) -> Bare:
        started.append(process := Bare(*arguments))
        if load:
            process.send(wire.LoadModel("m.gguf", ModelParameters(), 0.02))
            process.receive(wire.Ready)
            first = process.receive(wire.StepUpdate)  # the room, before there is any request
            assert (first.outputs, first.stats is None) == ([], False)
        return process

    yield start
    for process in started:
        process.process.kill()
        process.process.communicate()
        process.sock.close()


def test_an_idle_process_sends_heartbeats_and_exits_on_shutdown(bare):
    process = bare()
    heartbeat = process.receive(wire.Heartbeat)
    assert (heartbeat.busy_s, heartbeat.longest_s < 60) == (0.0, True)
    process.send(wire.Shutdown())
    assert process.end() == (0, "")


def test_process_exits_when_the_server_closes(bare):
    process = bare()
    process.sock.close()
    assert process.process.wait(10) == 0


def test_process_exits_when_the_server_closes_before_the_first_message(bare):
    process = bare(load=False)
    process.sock.close()
    assert process.process.wait(10) == 0


def test_all_sessions_share_one_frame_per_step(bare):
    process = bare()
    process.send(*(request(f"r{i}", [i], 5) for i in range(4)))
    frames = [process.receive(wire.StepUpdate) for _ in range(5)]
    assert all(len(frame.outputs) == 4 for frame in frames)
    assert [e.finish for e in frames[-1].outputs] == [FinishReason.LENGTH] * 4
    assert frames[-1].stats.running == 0  # the gauges are right when it falls idle


def test_an_idle_process_blocks_until_a_message_arrives():
    waits: list[float | None] = []

    def wait_readable(sock: socket.socket, timeout_s: float | None) -> bool:
        waits.append(timeout_s)
        return transport.wait_readable(sock, timeout_s)

    def load(path, params, progress) -> fake.FakeModel:
        return fake.FakeModel(0.0, None)

    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    reader = wire.server_reader()
    process = EngineProcess(theirs, load, wait_readable=wait_readable)
    thread = threading.Thread(target=process.run)
    thread.start()
    with theirs, ours:
        ours.sendall(wire.encode(wire.LoadModel("m.gguf", ModelParameters())))
        received: list[wire.ToServer] = []
        while not any(isinstance(message, wire.Ready) for message in received):
            received += reader.feed(ours.recv(1 << 16))
        ours.sendall(wire.encode(request("r", [1], 5)))
        while not (type(m := received[-1]) is wire.StepUpdate and m.outputs and m.outputs[0].finish):
            received += reader.feed(ours.recv(1 << 16))
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    # Without a limit before the request and after its end, and not at all while it is computed.
    assert [waits[0], waits[-1]] == [None, None]
    assert set(waits[1:-1]) == {0.0}


def test_first_frame_other_than_load_ends_the_process(bare):
    process = bare(load=False)
    process.send(wire.Resume("r"))
    status, errors = process.end()
    assert status == 1
    assert "the first message is Resume, not LoadModel" in errors


@pytest.mark.parametrize("noise", [b"\xff\xff\xff\xff", b"\x03\0\0\0abc"])
def test_noise_ends_the_process_with_a_reason(bare, noise):
    process = bare()
    process.sock.sendall(noise)
    assert "ProtocolError" in process.receive(wire.Fatal).message
    assert process.end()[0] == 1


def test_a_bug_in_the_scheduler_is_reported(bare):
    process = bare()
    process.send(request("r", [fake.BUG], 5))
    assert process.receive(wire.Fatal).message == "RuntimeError: a bug in the scheduler"
    status, errors = process.end()
    assert status == 1
    assert "Traceback" in errors


def test_engine_process_is_killed_before_the_server_when_memory_is_short(bare):
    score = Path(f"/proc/{bare().process.pid}/oom_score_adj")
    if sys.platform == "linux":
        assert score.read_text() == "500\n"


@LOOPS
def test_stop_drains_running_requests(loop):
    async def main():
        client = make_client("--step-ms", "2")
        await client.start()
        task = asyncio.create_task(collect(client.generate(request("a", [1], 100))))
        await until(lambda: client.requests()[0].n_generated > 5)
        stopping = asyncio.create_task(client.stop(30))
        await asyncio.sleep(0)
        with pytest.raises(EngineUnavailable, match="shutting down"):
            client.generate(request("b", [1], 1))
        await stopping
        assert await task == (text_of([1], 100), FinishReason.LENGTH, None)

    run(main, loop)


@pytest.mark.parametrize("second", [False, True], ids=["time is up", "second signal"])
def test_stop_cancels_requests_that_outlast_the_drain(second):
    async def main():
        client = make_client("--step-ms", "2")
        await client.start()
        stream = client.generate(request("a", [1], 100_000))
        await anext(stream)
        pid = client.pid
        stopping = asyncio.create_task(client.stop(60 if second else 0.2))
        if second:
            await asyncio.sleep(0.05)
            assert not stopping.done()
            await client.stop(0)
        await stopping
        _, finish, error = await collect(stream)
        assert (finish, error) == (FinishReason.CANCELLED, "the server is shutting down")
        assert not alive(pid)

    run(main)


def test_stop_while_loading_or_restarting_ends_the_process():
    async def main():
        client = make_client("--load-ms", "60000")
        starting = asyncio.create_task(client.start())
        await until(lambda: client.pid is not None)
        pid = client.pid
        await client.stop(30)
        assert not alive(pid)
        with pytest.raises(Exception, match="stopped while loading"):
            await starting
        client = make_client("--load-ms", "500")
        await client.start()
        stream = client.generate(request("a", [1], 1000))
        kill(client)
        await until(lambda: client.restarts == 1)
        await client.stop(0)
        assert (await collect(stream))[1] is FinishReason.CANCELLED

    run(main)


_PARENT = """
import asyncio, sys
sys.path[:0] = {path!r}
from support.fakes.engine_client import make_client, request
async def main():
    client = make_client(*{arguments!r})
    client.spawn()
    print(client.pid, flush=True)
    await client.start()
    if {prompt!r}:
        stream = client.generate(request("a", {prompt!r}, 100000))
        await anext(stream)
    print("reached", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def _calls(folder: Path) -> str:
    calls = folder / "calls"
    return calls.read_text() if calls.exists() else ""


@pytest.mark.parametrize(
    ("arguments", "prompt", "reached"),
    every(
        4,
        [
            ([], None, None),
            (["--step-ms", "1"], [1], None),
            ([], [fake.HANG], lambda folder: "hang" in _calls(folder)),
            (["--load-ms", "3600000"], None, lambda folder: (folder / "loading").exists()),
        ],
    ),
    ids=["idle", "computing", "in a step without end", "loading"],
)
def test_engine_does_not_outlive_a_killed_server(arguments, prompt, reached, tmp_path):
    root = Path(__file__).parents[3]
    path, arguments = [str(root), str(root / "tests")], [*arguments, "--dir", str(tmp_path)]
    code = _PARENT.format(path=path, arguments=arguments, prompt=prompt)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        child = int(parent.stdout.readline())
        if reached is None:
            assert parent.stdout.readline() == "reached\n"
        else:
            wait_until(lambda: reached(tmp_path))
        assert alive(child)
        parent.kill()
        parent.wait()
        wait_until(lambda: not alive(child))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_process_group_do_not_end_the_engine(number):
    async def main():
        async with running("--step-ms", "2") as client:
            task = asyncio.create_task(collect(client.generate(request("a", [1], 60))))
            await until(lambda: client.requests()[0].n_generated > 5)
            os.kill(client.pid, number)
            assert (await task)[0] == text_of([1], 60)
            assert client.restarts == 0

    run(main)
