"""The engine of an ingress, on scripted replicas: what is sent, and what becomes of it when they are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.tasks.types import Embed, Embedded, EraseSlot, TaskFailure
from engine.types import EngineStats, FinishReason, InferenceParameters, Request, StepOutput, Token
from server.replicas import engine as module
from server.replicas import messages
from server.replicas.engine import MAX_LOSSES, IngressLimits, ReplicaLost, ReplicatedEngine
from server.replicas.routing import prefix_keys
from server.worker.errors import EngineUnavailable, LoadFailed, QueueFull, TaskFailed
from support.fakes.engine_client import collect, request
from support.fakes.engine_process import next_token, text_of
from support.waiting import until

pytestmark = pytest.mark.asyncio


class ScriptedReplicas:
    """Each call takes the next of `lives`: after so many tokens its replica is lost; None: it lives."""

    def __init__(self, *lives: int | None) -> None:
        self.lives = list(lives)
        self.calls: list[tuple[Request, bytes]] = []
        self.cached: list[dict[str, int]] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.end = messages.TaskEnd(Embedded([b"1234"], 1))
        self.n_running = self.n_infos = 0

    async def generate(self, call: bytes, prefix: bytes, cached: dict[str, int]) -> AsyncIterator[bytes]:
        request = messages.decode_request(call)
        life = self.lives.pop(0) if self.lives else None
        self.calls.append((request, prefix))
        self.cached.append(cached)
        replica = f"replica {len(self.calls) % 2}"
        self.n_running += 1
        try:
            tokens = [*request.prompt, *request.generated]
            limit = request.params.max_tokens
            n = len(request.generated)
            while n < limit:
                if life is not None and n - len(request.generated) == life:
                    raise ReplicaLost("it was killed")
                await self.gate.wait()
                tokens.append(next_token(tokens))
                n += 1
                output = StepOutput(id=request.id, tokens=[Token(tokens[-1])])
                output.finish = FinishReason.LENGTH if n == limit else None
                message = messages.Outputs([output], replica)
                if output.finish:
                    message.stats = EngineStats(steps=n, cells_used=1, window_rows_used=1)
                yield messages.encode(message)
        finally:
            self.n_running -= 1
            self.ended.append(request.id)

    async def run(self, call: bytes) -> bytes:
        if self.lives and self.lives.pop(0) is not None:
            raise ReplicaLost("it was killed")
        await self.gate.wait()
        return messages.encode(self.end)

    async def info(self) -> dict[str, Any]:
        self.n_infos += 1
        if self.lives and self.lives[0] == -1:
            self.lives.pop(0)
            raise ReplicaLost("it was killed")
        return {"n_ctx": 100, "max_batch_tokens": 32}


@asynccontextmanager
async def running(replicas: ScriptedReplicas, parallel: int = 4, max_queue: int = 2):
    engine = ReplicatedEngine(
        "m",
        "m.gguf",
        replicas,
        IngressLimits(2, parallel, max_queue, 60.0),
        load_tokenizer=lambda path: "tokenizer",
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@pytest.fixture(autouse=True)
def no_delays(monkeypatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.0)


async def test_model_info_comes_from_a_replica():
    async with running(ScriptedReplicas()) as engine:
        assert (engine.state, engine.n_ctx, engine.max_batch_size) == ("ready", 100, 32)
        assert engine.tokenizer == "tokenizer"


async def test_replica_lost_at_the_start_is_asked_again(monkeypatch):
    monkeypatch.setattr(module, "TICK_S", 0.001)
    replicas = ScriptedReplicas(-1, -1)
    async with running(replicas) as engine:
        assert (engine.state, replicas.n_infos) == ("ready", 3)


async def test_a_tokenizer_that_cannot_be_loaded_fails_the_load():
    def load(path: str) -> None:
        raise ValueError("no tokenizer")

    engine = ReplicatedEngine(
        "m", "m.gguf", ScriptedReplicas(), IngressLimits(1, 1, 1, 60.0), load_tokenizer=load
    )
    with pytest.raises(LoadFailed, match="no tokenizer"):
        await engine.start()
    assert engine.state == "failed"
    with pytest.raises(EngineUnavailable, match="has failed"):
        engine.generate(request("a", [1], 1))


async def test_a_request_is_routed_by_its_prefix_with_a_seed():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        prompt = list(range(40))
        assert (await collect(engine.generate(request("a", prompt, 5))))[0] == text_of(prompt, 5)
    ((sent, prefix),) = replicas.calls
    assert prefix == prefix_keys(sent) != b""
    assert sent.params.seed is not None


async def test_next_turn_is_routed_with_the_cached_prefix_of_each_replica():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        prompt = list(range(20))
        tokens, _, _ = await collect(engine.generate(request("a", prompt, 30)))
        await collect(engine.generate(request("b", [5] * 40, 1)))
        await collect(engine.generate(request("c", [*prompt, *tokens, 7], 1)))
    assert replicas.cached == [{}, {}, {"replica 1": 48}]


async def test_computed_part_of_a_cancelled_request_is_remembered():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        prompt = list(range(20))
        stream = engine.generate(request("a", prompt, 4000))
        tokens = [token.id for _ in range(12) for token in (await anext(stream)).tokens]
        await stream.aclose()
        await until(lambda: replicas.ended == ["a"])
        await collect(engine.generate(request("b", [*prompt, *tokens], 1)))
    assert replicas.cached == [{}, {"replica 1": 32}]


@pytest.mark.parametrize("lives", [(3,), (0,), (3, 2), (1, 1, 1, 1, 1, 1, 1)])
async def test_a_stream_continues_when_its_replicas_are_lost(lives: tuple[int, ...]):
    replicas = ScriptedReplicas(*lives)
    async with running(replicas) as engine:
        tokens, finish, error = await collect(engine.generate(request("a", [1, 2, 3], 10)))
        assert engine.restarts == len(lives)
    assert (tokens, finish, error) == (text_of([1, 2, 3], 10), FinishReason.LENGTH, None)
    assert [len(sent.generated) for sent, _ in replicas.calls] == [
        sum(lives[:i]) for i in range(len(lives) + 1)
    ]
    assert len({sent.params.seed for sent, _ in replicas.calls}) == 1


async def test_lost_replica_does_not_affect_other_streams():
    replicas = ScriptedReplicas(2, None)
    async with running(replicas) as engine:
        one, two = (engine.generate(request(id, [ord(id)], 6)) for id in "ab")
        texts = await asyncio.gather(collect(one), collect(two))
    assert [tokens for tokens, _, _ in texts] == [text_of([97], 6), text_of([98], 6)]
    assert [sent.id for sent, _ in replicas.calls] == ["a", "b", "a"]


async def test_request_without_a_token_is_given_up_after_several_losses():
    replicas = ScriptedReplicas(2, *[0] * MAX_LOSSES)
    async with running(replicas) as engine:
        stream = engine.generate(request("a", [1], 6))
        received = [token.id for _ in range(2) for token in (await anext(stream)).tokens]
        assert received == text_of([1], 2)
        with pytest.raises(EngineUnavailable, match=f"lost {MAX_LOSSES} times"):
            await anext(stream)
        assert [*engine.requests()] == []
        assert len(replicas.calls) == MAX_LOSSES  # the first loss counts, since no token came after it


async def test_request_with_all_its_tokens_ends_when_its_replica_is_lost():
    class DiesLast(ScriptedReplicas):
        async def generate(self, call: bytes, *how: Any) -> AsyncIterator[bytes]:
            async for frame in super().generate(call, *how):
                message = messages.decode_outputs(frame)
                if message.outputs[0].finish is not None:
                    message.outputs[0].finish = None
                    yield messages.encode(message)
                    raise ReplicaLost("before it could say that this was the end")
                yield frame

    replicas = DiesLast()
    async with running(replicas) as engine:
        tokens, finish, _ = await collect(engine.generate(request("a", [1], 4)))
        assert (tokens, finish) == (text_of([1], 4), FinishReason.LENGTH)
    assert len(replicas.calls) == 1


async def test_an_unexpected_error_ends_the_request_with_its_reason_in_the_log(caplog):
    class Broken(ScriptedReplicas):
        async def generate(self, call: bytes, *how: Any) -> AsyncIterator[bytes]:
            yield b"no frame"

    async with running(Broken()) as engine:
        with pytest.raises(EngineUnavailable, match="cannot be called"):
            await collect(engine.generate(request("a", [1], 4)))
    assert "request a" in caplog.text


async def test_client_disconnect_ends_the_call():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        replicas.gate.clear()
        stream = engine.generate(request("a", [1], 4))
        await until(lambda: replicas.n_running == 1)
        await stream.aclose()
        await until(lambda: replicas.ended == ["a"])
        assert engine.restarts == 0


async def test_a_request_can_be_cancelled_from_outside():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        replicas.gate.clear()
        stream = engine.generate(request("a", [1], 4))
        await until(lambda: replicas.n_running == 1)
        assert engine.cancel("a")
        assert not engine.cancel("b")
        assert await collect(stream) == ([], FinishReason.CANCELLED, "cancelled")
        await until(lambda: replicas.ended == ["a"])


async def test_requests_beyond_the_queue_are_refused():
    replicas = ScriptedReplicas()
    async with running(replicas, parallel=2, max_queue=1) as engine:
        replicas.gate.clear()
        streams = [engine.generate(request(id, [1], 2)) for id in "abc"]
        assert (engine.stats.running, engine.stats.waiting) == (2, 1)
        with pytest.raises(QueueFull):
            engine.generate(request("d", [1], 2))
        with pytest.raises(QueueFull):
            await engine.run(Embed([[1]]))
        replicas.gate.set()
        for stream in streams:
            await collect(stream)


async def test_deadline_passes_while_there_is_no_replica(monkeypatch):
    monkeypatch.setattr(module, "TICK_S", 0.001)
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        replicas.gate.clear()
        stream = engine.generate(request("a", [1], 4, deadline_ms=0.0))
        assert (await collect(stream))[1] is FinishReason.TIMEOUT


async def test_counters_of_the_replicas_are_added():
    async with running(ScriptedReplicas()) as engine:
        for n in (3, 4, 5):
            await collect(engine.generate(request("a", [1], n)))
        assert (engine.stats.steps, engine.stats.cells_used, engine.stats.window_rows_used) == (5 + 4, 2, 2)


async def test_cells_of_a_silent_replica_do_not_count(monkeypatch):
    async with running(ScriptedReplicas()) as engine:
        await collect(engine.generate(request("a", [1], 3)))
        monkeypatch.setattr(module, "RECENT_S", -1.0)
        assert (engine.stats.steps, engine.stats.cells_used, engine.stats.window_rows_used) == (3, 0, 0)


async def test_a_task_is_run_again_when_its_replica_is_lost():
    replicas = ScriptedReplicas(0, 0)
    async with running(replicas) as engine:
        assert await engine.run(Embed([[1]])) == Embedded([b"1234"], 1)
        replicas.end = messages.TaskEnd(failure=TaskFailure("ConfigError", "an input is refused"))
        with pytest.raises(TaskFailed, match="an input is refused") as caught:
            await engine.run(Embed([[1]]))
        assert caught.value.kind == "ConfigError"


async def test_task_is_given_up_after_several_losses():
    async with running(ScriptedReplicas(*[0] * MAX_LOSSES)) as engine:
        with pytest.raises(TaskFailed) as caught:
            await engine.run(Embed([[1]]))
        assert caught.value.kind == "EngineDied"


async def test_slot_tasks_are_refused():
    async with running(ScriptedReplicas()) as engine:
        with pytest.raises(TaskFailed, match="slots belong to one engine"):
            await engine.run(EraseSlot([1]))


async def test_stop_cancels_requests_that_outlast_the_drain():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        replicas.gate.clear()
        stream = engine.generate(request("a", [1], 4))
        await until(lambda: replicas.n_running == 1)
        await engine.stop(drain_s=0.001)
        assert (await collect(stream))[1] is FinishReason.CANCELLED
        assert replicas.ended == ["a"]
        with pytest.raises(EngineUnavailable, match="shutting down"):
            engine.generate(request("b", [1], 4))


async def test_a_request_keeps_its_own_seed():
    replicas = ScriptedReplicas()
    async with running(replicas) as engine:
        params = InferenceParameters(max_tokens=1, seed=5)
        await collect(engine.generate(Request(id="a", prompt=[1], params=params)))
    assert replicas.calls[0][0].params.seed == 5
