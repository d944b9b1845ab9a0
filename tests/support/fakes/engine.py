"""An engine for tests of the HTTP side: the real tokenizer and real streams, tokens from a script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.tasks.types import (
    Embed,
    Embedded,
    Erased,
    GetPromptLogprobs,
    PromptLogprobs,
    Restored,
    RestoreSlot,
    Saved,
    SaveSlot,
    Task,
)
from engine.tokenizer import load_tokenizer
from engine.types import EngineStats, FinishReason, Request, StepOutput, Timings, Token
from server.app import create_app
from server.config.settings import Settings
from server.registry.loader import Capacity
from server.registry.registry import ModelRegistry, Policy
from server.registry.served_model import ServedModel
from server.worker.errors import EngineUnavailable, QueueFull
from server.worker.requests.slots import Slots
from server.worker.requests.stream import RequestInfo, Stream
from server.worker.supervision.process import StartedProcess

STORIES = Path(__file__).resolve().parents[3] / "models" / "stories.gguf"
TEXT = " there was a little cat. She liked to play in the garden."


@cache
def tokenizer() -> Any:
    return load_tokenizer(STORIES)


def ids(text: str) -> list[int]:
    """Tokens of a text, nothing added."""
    return tokenizer().encode(text, add_special=False, parse_special=True)


class FakeEngine:
    """`reply`: text, token ids, or a function of the request that gives ids.

    Tokens come `step` at a time, `delay_s` apart, the first after `prefill_s` and after `gate` is open.
    fail_after: requests end with an error after so many tokens.
    """

    def __init__(
        self,
        reply: str | Sequence[int] | Callable[[Request], Sequence[int]] = TEXT,
        *,
        name: str = "stories",
        n_ctx: int = 512,
        max_batch_size: int = 256,
        delay_s: float = 0.0,
        prefill_s: float = 0.0,
        step: int = 1,
        fail_after: int | None = None,
        cached_n: int = 0,
        eos: bool = True,
    ) -> None:
        self.name, self.n_ctx, self.max_batch_size = name, n_ctx, max_batch_size
        self.reply = ids(reply) if isinstance(reply, str) else reply
        self.delay_s, self.prefill_s, self.step = delay_s, prefill_s, step
        self.fail_after, self.cached_n, self.eos = fail_after, cached_n, eos
        self.gate = asyncio.Event()
        self.gate.set()
        self.logprob_of: Callable[[int], float] = lambda id: -0.5
        self.state, self.detail, self.progress = "ready", "", 1.0
        self.stalled, self.blocked, self.full, self.replaced = False, False, False, False
        self.restarts = 0
        self.info: dict[str, Any] | None = {
            "architecture": "llama",
            "n_ctx": n_ctx,
            "n_embd": N_EMBD,
            "generates": True,
            "n_scores": 0,
            "pooling": "last",
            "path": "/secret/stories.gguf",
            "lora": [{"id": 0, "path": "/secret/a.gguf", "scale": 0.0, "task_name": "", "prompt_prefix": ""}],
        }
        self.stats = EngineStats(cells_total=4096)
        self.load_error: Exception | None = None
        self.tokenizer = tokenizer()
        self.load_gate: asyncio.Event | None = None
        self.reloads = False  # `start` makes it ready
        self.seen: list[Request] = []  # everything submitted
        self.left: list[str] = []  # ids whose client went away, and names of work that was cancelled
        self.works: list[Task[Any]] = []  # everything ordered
        self.work_error: Exception | None = None
        self.saved: dict[str, list[int]] = {}
        self.slots = Slots(4)
        self.paused: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._streams: dict[str, Stream] = {}
        self._holds: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        if self.load_gate is not None:
            await self.load_gate.wait()
        if self.load_error is not None:
            self.state, self.detail = "failed", str(self.load_error)
            raise self.load_error
        if self.reloads:
            self.state = "ready"

    async def stop(self, drain_s: float = 0.0) -> None:
        self.state, self.reloads = "stopped", True
        for id in list(self._streams):
            self.cancel(id)

    def spawn(self, started: StartedProcess | None = None) -> None: ...

    def kill(self) -> None: ...

    def ensure_room(self, n: int = 1) -> None:
        if self.full:
            raise QueueFull(3, 2.5)

    def generate(self, request: Request) -> Stream:
        if self.state not in ("ready", "restarting"):
            raise EngineUnavailable(f"{self.name} has failed: the device at /dev/secret is lost")
        self.ensure_room()
        assert request.id not in self._streams
        self.seen.append(request)
        stream = self._streams[request.id] = Stream(self, request)
        self.slots.enter(stream, request)
        self._tasks[request.id] = asyncio.create_task(self._run(stream))
        self._count()
        return stream

    async def run(self, work: Task[Any]) -> Any:
        if self.state not in ("ready", "restarting"):
            raise EngineUnavailable(f"{self.name} has failed: the device at /dev/secret is lost")
        self.ensure_room()
        self.works.append(work)
        try:
            await self.gate.wait()
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.left.append(type(work).__name__)
            raise
        if self.work_error is not None:
            raise self.work_error
        return self._work(work)

    def _work(self, work: Task[Any]) -> Any:
        match work:
            case Embed(inputs, pooling):
                pooled = [vectors(tokens, pooling) for tokens in inputs]
                return Embedded([v.astype("<f4").tobytes() for v in pooled], pooled[0].shape[-1])
            case GetPromptLogprobs(tokens, top):
                best = [[x for i in range(top) for x in (id + i, -0.5 - i)] for id in tokens[1:]]
                rows = [[self.logprob_of(id), 1, *pairs] for id, pairs in zip(tokens[1:], best, strict=True)]
                return PromptLogprobs(np.array(rows, "<f8").tobytes(), 2 + 2 * top)
            case SaveSlot(path, tokens):
                self.saved[path] = list(tokens)
                return Saved(len(tokens) - 1, 1000, 1.5)
            case RestoreSlot(path):
                tokens = self.saved[path]
                return Restored(tokens, len(tokens) - 1, 1000, 1.5)
            case _:
                return Erased(len(work.tokens) - 1)

    def requests(self) -> list[RequestInfo]:
        return [stream.info(self.name) for stream in self._streams.values()]

    def cancel(self, id: str) -> bool:
        stream = self._streams.get(id)
        if stream is not None:
            stream.end(FinishReason.CANCELLED, "cancelled")
            self._remove(id)
        return stream is not None

    # --- the streams' calls

    def pause(self, stream: Stream) -> None:
        self.paused.append(stream.request.id)
        self._holds[stream.request.id] = asyncio.Event()

    def resume(self, stream: Stream) -> None:
        self.paused.remove(stream.request.id)
        self._holds.pop(stream.request.id).set()

    def leave(self, stream: Stream) -> None:
        self.left.append(stream.request.id)
        self._remove(stream.request.id)

    def fail_all(self) -> None:
        """The engine is gone for good."""
        self.state = "failed"
        for id, stream in list(self._streams.items()):
            stream.fail(EngineUnavailable(f"{self.name} has failed"))
            self._remove(id)

    def _remove(self, id: str) -> None:
        if id in self._streams:
            self.slots.leave(self._streams.pop(id))
        task = self._tasks.pop(id, None)
        if task is not None:
            task.cancel()
        self._count()

    def _count(self) -> None:
        self.stats.running = len(self._streams)

    def script(self, request: Request) -> list[int]:
        reply = self.reply(request) if callable(self.reply) else self.reply
        tokens = list(reply)
        return [*tokens, self.tokenizer.eos_id] if self.eos else tokens

    async def _run(self, stream: Stream) -> None:
        request, params = stream.request, stream.request.params
        n = len(request.prompt)
        if request.deadline_ms is not None:
            now = asyncio.get_running_loop().time() * 1000  # the monotonic clock, as engines use
            asyncio.get_running_loop().call_later(
                max(0.0, request.deadline_ms - now) / 1000, lambda: stream.end(FinishReason.TIMEOUT)
            )
        await self.gate.wait()
        if self.prefill_s:
            so_far = Timings(prompt_n=n // 2 - self.cached_n, cached_n=self.cached_n, prompt_ms=1.5)
            stream.push(StepOutput(id=request.id, processed=n // 2, timings=so_far))
            await asyncio.sleep(self.prefill_s)
        timings = Timings(
            queue_ms=1.0,
            prompt_n=n - self.cached_n,
            cached_n=self.cached_n,
            prompt_ms=2.0,
            n_batch=request.n_batch,
        )
        created = 0
        script = self.script(request)
        limit = len(script) if params.max_tokens is None else min(params.max_tokens, len(script))
        ends = self.tokenizer.eog_ids | set(params.stop_token_ids)
        while True:
            await asyncio.sleep(self.delay_s)
            if request.id in self._holds:
                await self._holds[request.id].wait()
            if self.fail_after is not None and created >= self.fail_after:
                stream.end(FinishReason.ERROR, "ggml: abort in /root/secret.c at 0x7f00deadbeef")
                break
            tokens, finish = [], None
            for id in script[created : min(created + self.step, limit)]:
                tokens.append(self._token(id, params.logprobs))
                created += 1
                if id in ends:
                    finish = FinishReason.STOP
                    break
            if finish is None and created >= limit:
                finish = FinishReason.LENGTH
            final = Timings(
                **{
                    **{f: getattr(timings, f) for f in timings.__struct_fields__},
                    "predicted_n": created,
                    "predicted_ms": 3.0,
                }
            )
            first = created == len(tokens)
            values = final if finish else timings if first else None
            stream.push(StepOutput(id=request.id, tokens=tokens, finish=finish, timings=values))
            if finish is not None:
                break
        if request.id in self._streams:
            self.slots.leave(self._streams.pop(request.id))
        self._tasks.pop(request.id, None)
        self._count()

    def _token(self, id: int, logprobs: int | None) -> Token:
        if logprobs is None:
            return Token(id)
        top = [((id + i) % self.tokenizer.n_vocab, -0.5 - i) for i in range(logprobs)]
        return Token(id, self.logprob_of(id), top)


N_EMBD = 8


def vectors(tokens: Sequence[int], pooling: str = "mean") -> Any:
    """What the fake engine makes of an input: float32 [rows, N_EMBD], a score for `rank`."""
    import numpy as np

    rows = np.array([[(id * (i + 3)) % 11 - 4.0 for i in range(N_EMBD)] for id in tokens], np.float32)
    if pooling == "none":
        return rows
    if pooling == "rank":
        return np.array([[sum(tokens) % 17 - 8.0]], np.float32)
    return rows.mean(0, keepdims=True)


def settings(**fields: Any) -> Settings:
    """Settings of a test: nothing from files or the environment, the bundled model unless fields name one."""
    return Settings.model_validate({"model": [str(STORIES)], **fields})


def make_app(engine: FakeEngine | Mapping[str, FakeEngine] | None = None, **fields: Any) -> Any:
    if engine is None or isinstance(engine, FakeEngine):
        engine = engine or FakeEngine()
        engine = {engine.name: engine}
    options = settings(**fields)
    paths = {name: options.models().get(name, Path(name)) for name in engine}
    return create_app(options, ModelRegistry(paths, factory(engine)))


def factory(engines: Mapping[str, FakeEngine]) -> Callable[[ServedModel, int | None], FakeEngine]:
    """The first load of a model is that of its engine here, the others are those of copies."""
    used: set[str] = set()

    def new_engine(model: ServedModel, memory: int | None) -> FakeEngine:
        engine = engines[model.name]
        if model.name in used:
            engine = copy(engine)
            engine.state, engine.reloads = "loading", True
        used.add(model.name)
        return engine

    return new_engine


def make_folder_app(*engines: FakeEngine, **fields: Any) -> Any:
    """An application whose models are loaded on request. The test runs no process and reads no folder."""
    options, by_name = settings(**fields), {engine.name: engine for engine in engines}

    for engine in engines:
        engine.state, engine.reloads = "loading", True
    policy = Policy(autoload=not options.no_models_autoload)
    limits = Capacity(options.models_max or 0)
    new_engine = factory(by_name)
    registry = ModelRegistry({}, new_engine, policy, limits, check_file=lambda path: None)
    registry.models |= {
        name: ServedModel(name, Path(f"/secret/{name}.gguf"), in_folder=True) for name in by_name
    }
    return create_app(options, registry)


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """The application on a real socket, in a thread. Gives the base address."""
    import socket
    import threading

    import uvicorn

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="on", access_log=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            thread.join(0.005)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
        assert not thread.is_alive()
