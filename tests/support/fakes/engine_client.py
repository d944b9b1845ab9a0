"""Engine clients on the fake engine process, for tests that kill, stall and flood it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engine.types import FinishReason, InferenceParameters, Request
from server.config.settings import Settings
from server.worker.client import EngineClient
from support.fakes.engine_process import PARALLEL
from support.waiting import until as until

FAKE = Path(__file__).with_name("engine_process.py")


def run(main: Callable[[], Awaitable[None]], loop_factory=None) -> None:
    """Run one test in its own event loop."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main(), 60))


def make_client(
    *arguments: str,
    path: str = "fake.gguf",
    python: str = sys.executable,
    load_tokenizer: Callable[[str], object] = lambda path: "tokenizer",
    clock: Callable[[], float] = time.monotonic,
    **settings,
) -> EngineClient:
    """A client whose process is the fake one, started with `arguments`."""
    return EngineClient(
        "fake",
        path,
        Settings(parallel=PARALLEL, **settings),
        argv=[python, str(FAKE), *arguments],
        load_tokenizer=load_tokenizer,
        clock=clock,
    )


@asynccontextmanager
async def running(*arguments: str, **options):
    """A client that is ready; its process is gone afterwards."""
    client = make_client(*arguments, **options)
    try:
        await client.start()
        yield client
    finally:
        pid = client.pid
        await client.stop()
        assert pid is None or not alive(pid)


def request(id: str, prompt: list[int], n: int, **fields) -> Request:
    params = InferenceParameters(max_tokens=n, temperature=0.0, mirostat=fields.pop("mirostat", 0))
    return Request(id=id, prompt=prompt, params=params, **fields)


async def collect(stream) -> tuple[list[int], FinishReason | None, str | None]:
    """All tokens of a stream, how it ended, and its error."""
    tokens: list[int] = []
    async for emission in stream:
        tokens += [token.id for token in emission.tokens]
        if emission.finish is not None:
            return tokens, emission.finish, emission.error
    return tokens, None, None


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if sys.platform == "linux":
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state != "Z"


def kill(client: EngineClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
