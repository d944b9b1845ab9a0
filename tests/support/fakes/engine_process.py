"""An engine process with a scripted model: `python tests/support/fakes/engine_process.py … --fd N`.

It runs the real loop of `server.worker.process.main`. The next token is a function of all tokens before it,
so a stream that was interrupted and resumed can be compared with one that was not. Some tokens in a prompt
have side effects (see the constants).
"""

from __future__ import annotations

import argparse
import os
import signal
import struct
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from engine.errors import ContextOverflowError, ModelError, OutOfMemoryError
from engine.tasks.types import AnyTask, Embed, Embedded, Erased, ResultChunk, TaskFailure, TaskUpdate
from engine.types import EngineStats, FinishReason, Request, StepOutput, Timings, Token
from server.worker.process import main as engine_process

DIE_IN_PREFILL = 666  # kill -9 when this prompt token is computed
HANG = 667  # never return from the step
SPIN = 665  # neither, and use the processor
ABORT = 668  # print what ggml prints, and abort
BUG = 669  # the scheduler raises
DIE_AT_TOKEN = 670  # kill -9 instead of the 4th generated token
PARALLEL = 4
N_CTX = 4096


def next_token(tokens: list[int], mu: float | None = None) -> int:
    return 1000 + zlib.crc32(repr((tokens, mu)).encode()) % 1000


def text_of(prompt: list[int], n: int, *, mirostat: bool = False) -> list[int]:
    """What an undisturbed engine generates."""
    tokens, mu = list(prompt), 10.0 if mirostat else None
    for _ in range(n):
        tokens.append(next_token(tokens, mu))
        mu = mu + tokens[-1] / 7 if mu is not None else None
    return tokens[len(prompt) :]


class Session:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens = [*request.prompt, *request.generated]
        self.n_past = 0
        self.n_generated = len(request.generated)
        self.mu = request.sampler_state if request.sampler_state is not None else 10.0
        self.paused = False
        self.started = time.monotonic()


class FakeScheduler:
    def __init__(self, step_s: float, log: Path | None) -> None:
        self.step_s, self.log = step_s, log
        self.sessions: dict[str, Session] = {}
        self.ended: list[StepOutput] = []
        self.n_steps = self.n_predicted = self.n_rows = 0

    @property
    def has_work(self) -> bool:
        return bool(self.ended) or any(not s.paused for s in self.sessions.values())

    def _note(self, text: str) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(text + "\n")

    def submit(self, request: Request) -> None:
        self._note(f"submit {request.id} {len(request.generated)} {request.params.seed}")
        if len(request.prompt) >= N_CTX:
            raise ContextOverflowError(len(request.prompt), N_CTX)
        self.sessions[request.id] = Session(request)

    def cancel(self, id: str) -> bool:
        self._note(f"cancel {id} {self.n_steps}")
        if self.sessions.pop(id, None) is None:
            return False
        self.ended.append(StepOutput(id=id, finish=FinishReason.CANCELLED))
        return True

    def pause(self, id: str) -> None:
        self._note(f"pause {id}")
        if id in self.sessions:
            self.sessions[id].paused = True

    def resume(self, id: str) -> None:
        self._note(f"resume {id}")
        if id in self.sessions:
            self.sessions[id].paused = False

    def step(self) -> list[StepOutput]:
        update, self.ended = self.ended, []
        now_ms = time.monotonic() * 1000
        for id, session in list(self.sessions.items()):
            deadline = session.request.deadline_ms
            if deadline is not None and now_ms > deadline:
                del self.sessions[id]
                update.append(StepOutput(id=id, finish=FinishReason.TIMEOUT, timings=self._timings(session)))
        running = [s for s in list(self.sessions.values())[:PARALLEL] if not s.paused]
        if not running:
            return update
        time.sleep(self.step_s)
        self.n_steps += 1
        for session in running:
            update.append(self._advance(session))
        return update

    def _advance(self, session: Session) -> StepOutput:
        request = session.request
        chunk = session.tokens[session.n_past : session.n_past + request.n_batch]
        self.n_rows = len(chunk)
        session.n_past += len(chunk)
        if DIE_AT_TOKEN in request.prompt and session.n_generated == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        self._side_effects(chunk)
        if session.n_past < len(session.tokens):
            return StepOutput(id=request.id, processed=session.n_past)
        mirostat = bool(request.params.mirostat)
        id = next_token(session.tokens, session.mu if mirostat else None)
        session.tokens.append(id)
        session.n_generated += 1
        self.n_predicted += 1
        session.mu += id / 7
        token = Token(id, sampler_state=session.mu if mirostat else None)
        emission = StepOutput(id=request.id, tokens=[token])
        if session.n_generated >= (request.params.max_tokens or N_CTX):
            emission.finish = FinishReason.LENGTH
            del self.sessions[request.id]
        if emission.finish or session.n_generated - len(request.generated) == 1:
            emission.timings = self._timings(session)
        return emission

    def _timings(self, session: Session) -> Timings:
        return Timings(
            prompt_n=len(session.request.prompt) + len(session.request.generated),
            predicted_n=session.n_generated - len(session.request.generated),
            predicted_ms=1.0,
            n_batch=session.request.n_batch,
        )

    def _side_effects(self, chunk: list[int]) -> None:
        if DIE_IN_PREFILL in chunk:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANG in chunk:
            self._note("hang")
            time.sleep(3600)
        if SPIN in chunk:
            while True:
                pass
        if ABORT in chunk:
            print("some warning before", file=sys.stderr)
            print("ggml.c:1234: GGML_ASSERT(ne0 == 1) failed", file=sys.stderr, flush=True)
            print("something after", file=sys.stderr, flush=True)
            os.abort()
        if BUG in chunk:
            raise RuntimeError("a bug in the scheduler")

    def stats(self) -> EngineStats:
        used = sum(s.n_past for s in self.sessions.values())
        return EngineStats(
            running=len(self.sessions), cells_used=used, steps=self.n_steps, predicted_tokens=self.n_predicted
        )


def vector_of(tokens: list[int]) -> bytes:
    """What the fake engine makes of an input: its length and its sum, and a checksum."""
    return struct.pack("<3f", len(tokens), sum(tokens), zlib.crc32(repr(tokens).encode()) % 1000)


class FakeTasks:
    """An input of an Embed a step; with pooling `none` as many bytes as its first token says."""

    def __init__(self, scheduler: FakeScheduler) -> None:
        self.scheduler = scheduler
        self.orders: dict[str, tuple[AnyTask, int]] = {}
        self.n_rows = 0

    @property
    def has_work(self) -> bool:
        return bool(self.orders)

    def submit(self, id: str, work: AnyTask) -> None:
        self.scheduler._note(f"task {id} {type(work).__name__}")
        self.orders[id] = work, 0

    def cancel(self, id: str) -> None:
        if self.orders.pop(id, None) is not None:
            self.scheduler._note(f"drop {id}")

    def yield_cells(self) -> None:
        pass

    def step(self, busy: bool) -> list[TaskUpdate]:
        id, (work, i) = next(iter(self.orders.items()))
        del self.orders[id]
        if not isinstance(work, Embed):
            return [TaskUpdate(id, result=Erased(len(work.tokens)))]
        tokens = work.inputs[i]
        time.sleep(self.scheduler.step_s)
        self.scheduler._side_effects(tokens)
        if tokens == [0]:
            return [TaskUpdate(id, failure=TaskFailure("ConfigError", "an input is refused"))]
        data = bytes(tokens[0]) if work.pooling == "none" else vector_of(tokens)
        last = i + 1 == len(work.inputs)
        if not last:
            self.orders[id] = work, i + 1
        return [TaskUpdate(id, [ResultChunk(i, data)], Embedded([], 3) if last else None)]


class FakeModel:
    generates = True

    def __init__(self, step_s: float, log: Path | None) -> None:
        self._scheduler = FakeScheduler(step_s, log)

    def scheduler(self) -> FakeScheduler:
        return self._scheduler

    def tasks(self) -> FakeTasks:
        return FakeTasks(self._scheduler)

    def describe(self) -> dict[str, object]:
        return {"n_ctx": N_CTX, "max_batch_tokens": 64, "arch": "fake", "layers": ["CPU"]}

    def close(self) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-ms", type=float, default=1.0)
    parser.add_argument("--load-ms", type=float, default=10.0)
    parser.add_argument("--dir", type=Path, help="where starts are counted and calls are noted")
    parser.add_argument("--fail-from", type=int, default=10**9, help="loading fails from this start on")
    parser.add_argument("--no-memory", type=int, nargs="*", default=[], help="starts without memory to load")
    parser.add_argument(
        "--hang-loading", type=int, nargs="*", default=[], help="starts that hang while loading"
    )
    parser.add_argument(
        "--die-loading", type=int, nargs="*", default=[], help="starts that die while loading"
    )
    options, rest = parser.parse_known_args()
    start = 0
    if options.dir is not None:
        starts = options.dir / "starts"
        start = len(starts.read_text().splitlines()) if starts.exists() else 0
        with starts.open("a") as file:
            file.write(f"{os.getpid()}\n")

    def load(path, params, progress):
        if options.dir is not None:
            (options.dir / "loading").touch()
        if path.endswith(".missing"):
            raise FileNotFoundError(2, "No such file or directory")
        if start in options.no_memory:
            raise OutOfMemoryError("CPU has 20.1 MiB free", device="CPU", needed=1 << 30, free=21 << 20)
        if start >= options.fail_from:
            raise ModelError("the file ends inside tensor 'x'")
        for i in range(10):
            time.sleep(options.load_ms / 10_000)
            progress(i / 10, f"layer {i}")
            if i == 5 and start in options.hang_loading:
                time.sleep(3600)
            if i == 5 and start in options.die_loading:
                os.kill(os.getpid(), signal.SIGKILL)
        return FakeModel(options.step_ms / 1000, options.dir / "calls" if options.dir else None)

    return engine_process.main(rest, load=load)


if __name__ == "__main__":
    os._exit(main())
