"""Work beside streams: shares of the batch and of the cache; sequences that are saved and brought back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.tasks import runner as tasks_module
from engine.tasks.runner import TaskRunner
from engine.tasks.types import (
    AnyTask,
    Embed,
    Embedded,
    Erased,
    EraseSlot,
    Restored,
    RestoreSlot,
    Saved,
    SaveSlot,
    TaskUpdate,
)
from engine.types import Request, StepOutput
from support.builders.golden import FOLDER, golden
from support.builders.snapshots import load

LLAMA = golden("llama-gqa-tied")
PROMPT = LLAMA.prompt


def request(id: str, prompt: list[int], n: int) -> Request:
    params = engine.InferenceParameters(temperature=0.0, max_tokens=n, ignore_eos=True)
    return Request(id=id, prompt=prompt, params=params, n_batch=64)


def finish(tasks: TaskRunner, *works: AnyTask) -> list[Any]:
    """Results of works that run side by side, or their failures."""
    for i, work in enumerate(works):
        tasks.submit(str(i), work)
    return collect(tasks, len(works))


def collect(tasks: TaskRunner, n: int) -> list[Any]:
    updates: list[TaskUpdate] = []
    while tasks.has_work:
        updates += tasks.step(False)
    return results(updates, n)


def results(reported: list[TaskUpdate], n: int) -> list[Any]:
    parts: dict[str, dict[int, bytes]] = {}
    ends: dict[str, Any] = {}
    for update in reported:
        for piece in update.chunks:
            mine = parts.setdefault(update.id, {})
            mine[piece.input] = mine.get(piece.input, b"") + piece.data
        if update.result is not None or update.failure is not None:
            assert update.id not in ends
            ends[update.id] = update.failure or update.result
            if isinstance(update.result, Embedded):
                mine = parts[update.id]
                ends[update.id] = [np.frombuffer(mine[i], "<f4") for i in range(len(mine))]
    return [ends[str(i)] for i in range(n)]


def stream(model: engine.Model, id: str, prompt: list[int], n: int) -> tuple[list[int], StepOutput]:
    scheduler = model.scheduler()
    scheduler.submit(request(id, prompt, n))
    tokens: list[int] = []
    while True:
        for emission in scheduler.step():
            tokens += [token.id for token in emission.tokens]
            if emission.finish is not None:
                return tokens, emission


def test_jobs_share_batches_and_get_their_own_vectors() -> None:
    with load(LLAMA.path, max_batch_tokens=64) as model:
        inputs = [[PROMPT[i : i + n] for n in (3, 70, 1, 20)] for i in range(3)]
        expected = [
            [model.embed(tokens, pooling=p, normalize=False) for tokens in job]
            for job, p in zip(inputs, ("last", "mean", "cls"), strict=True)
        ]
        works = [Embed(job, p) for job, p in zip(inputs, ("last", "mean", "cls"), strict=True)]
        actual = finish(model.tasks(), *works)
        for got, requested in zip(actual, expected, strict=True):
            for a, b in zip(got, requested, strict=True):
                np.testing.assert_allclose(a, b, atol=2e-4)
        assert model.pool.n_free == model.pool.n_cells


def test_a_small_job_does_not_wait_for_a_large_one() -> None:
    with load(LLAMA.path, max_batch_tokens=64) as model:
        tasks = model.tasks()
        tasks.submit("large", Embed([PROMPT[:30]] * 50))
        tasks.step(False)
        tasks.submit("small", Embed([PROMPT[:3]]))
        updates = tasks.step(False) + tasks.step(False)
        assert any(update.id == "small" and update.result is not None for update in updates)
        tasks.cancel("large")
        assert not tasks.has_work
        assert model.pool.n_free == model.pool.n_cells


def test_refused_task_is_reported_and_the_rest_continues() -> None:
    with load(LLAMA.path) as model:
        empty, odd, long, no_head, good = finish(
            model.tasks(),
            Embed([]),
            Embed([[5]], "max"),
            Embed([[5] * 257]),
            Embed([[5]], "rank"),
            Embed([[5, 6]]),
        )
        assert (empty.kind, odd.kind, long.kind) == ("ConfigError", "ConfigError", "ContextOverflowError")
        assert no_head.kind == "ConfigError"
        np.testing.assert_allclose(good[0], model.embed([5, 6], normalize=False), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
def test_streams_that_need_the_cells_get_them(pooling: str) -> None:
    """A job that holds most of the cache begins anew, and the stream is not ended for want of a cell."""
    with load(LLAMA.path, max_batch_tokens=4, parallel=2) as model:  # 256 cells
        expected, _ = stream(model, "x", PROMPT[:50], 180)
        alone = model.embed(PROMPT[:150], pooling=pooling, normalize=False)
        model.prefix.evict(256)
        scheduler, tasks = model.scheduler(), model.tasks()
        scheduler.submit(request("x", PROMPT[:50], 180))
        tokens: list[int] = []
        updates: list[TaskUpdate] = []
        waited = False
        while scheduler.has_work or tasks.has_work:
            tasks.yield_cells()
            for emission in scheduler.step():
                assert emission.error is None
                tokens += [token.id for token in emission.tokens]
                if len(tokens) == 40:  # there is just room for the job, but not until it is done
                    tasks.submit("0", Embed([PROMPT[:150]], pooling))
            if not tasks.has_work:
                continue
            update = tasks.step(scheduler.has_work)
            waited = waited or (scheduler.has_work and not update)
            updates += update
        scheduler.check()
        assert tokens == expected
        assert waited
        (got,) = results(updates, 1)
        np.testing.assert_allclose(got[0], alone.ravel(), atol=2e-4)


def test_slot_is_saved_restored_and_erased(tmp_path: Path) -> None:
    path = str(tmp_path / "a.bin")
    with load(LLAMA.path) as model:
        generated, end = stream(model, "a", PROMPT[:100], 20)
        assert end.timings is not None
        assert end.timings.cached_n == 0
        tokens = [*PROMPT[:100], *generated]
        (saved,) = finish(model.tasks(), SaveSlot(path, tokens))
        assert isinstance(saved, Saved)
        assert (saved.n_tokens, saved.n_bytes) == (119, Path(path).stat().st_size)
        (erased,) = finish(model.tasks(), EraseSlot(tokens))
        assert erased == Erased(119)
        assert model.pool.n_free == model.pool.n_cells
        again, end = stream(model, "b", PROMPT[:100], 20)
        assert end.timings is not None
        assert (again, end.timings.cached_n) == (generated, 0)
    with load(LLAMA.path) as model:  # as after a restart
        (restored,) = finish(model.tasks(), RestoreSlot(path))
        assert isinstance(restored, Restored)
        assert restored.tokens == tokens
        assert (restored.n_tokens, restored.n_bytes) == (119, saved.n_bytes)
        again, end = stream(model, "c", PROMPT[:100], 20)
        assert end.timings is not None
        assert (again, end.timings.cached_n) == (generated, 99)
        model.scheduler().check()


def test_shared_prefixes_are_not_erased() -> None:
    with load(LLAMA.path) as model:
        first, _ = stream(model, "a", PROMPT[:100], 10)
        stream(model, "b", [*PROMPT[:60], *PROMPT[:30]], 10)
        (erased,) = finish(model.tasks(), EraseSlot([*PROMPT[:100], *first]))
        assert erased == Erased(49)
        _, end = stream(model, "c", [*PROMPT[:60], *PROMPT[:30]], 10)
        assert end.timings is not None
        assert end.timings.cached_n == 89
        model.scheduler().check()


def test_save_of_a_partly_evicted_slot_saves_the_cached_part_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with load(LLAMA.path) as model:
        tasks = model.tasks()
        (failure,) = finish(tasks, SaveSlot(str(path), PROMPT[:40]))
        assert (failure.kind, "not" in failure.text or "nothing" in failure.text) == ("ConfigError", True)
        stream(model, "a", PROMPT[:40], 4)
        model.prefix.evict(13)
        (saved,) = finish(tasks, SaveSlot(str(path), PROMPT[:40]))
        assert saved.n_tokens == 30  # of 43
        model.prefix.evict(256)
        (restored,) = finish(tasks, RestoreSlot(str(path)))
        assert (restored.tokens, restored.n_tokens) == (PROMPT[:40], 30)


def test_errors_name_no_path(tmp_path: Path) -> None:
    with load(LLAMA.path) as model:
        stream(model, "a", PROMPT[:40], 4)
        (tmp_path / "odd").write_bytes(b"x" * 100)
        absent = tmp_path / "absent"
        nowhere, unknown, odd = finish(
            model.tasks(),
            SaveSlot(str(absent / "a"), PROMPT[:40]),
            RestoreSlot(str(absent)),
            RestoreSlot(str(tmp_path / "odd")),
        )
        assert (nowhere.kind, unknown.kind, odd.kind) == ("StorageError", "ConfigError", "ModelError")
        for failure in (nowhere, unknown, odd):
            assert str(tmp_path) not in failure.text
            assert failure.text.startswith("the file: ")


@pytest.mark.parametrize("what", ["save", "restore"])
def test_steps_alongside_streams_and_a_cancel_in_between(what: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tasks_module, "STEP_S", 0.0)  # one piece a step at least
    path = tmp_path / "a"
    with load(LLAMA.path, kv_cells=512) as model:
        generated, _ = stream(model, "a", PROMPT[:100], 10)
        tokens = [*PROMPT[:100], *generated]
        tasks = model.tasks()
        (saved,) = finish(tasks, SaveSlot(str(path), tokens))
        before = path.read_bytes()
        if what == "restore":
            finish(tasks, EraseSlot(tokens))
        free = model.pool.n_free + model.prefix.n_evictable
        work: AnyTask = SaveSlot(str(path), tokens) if what == "save" else RestoreSlot(str(path))
        tasks.submit("x", work)
        updates = [update for _ in range(2) for update in tasks.step(True)]
        assert [update.result for update in updates] == [None, None]
        other, _ = stream(model, "b", PROMPT[3:50], 10)
        tasks.cancel("x")
        assert not tasks.has_work
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
        assert model.pool.n_free + model.prefix.n_evictable == free
        model.scheduler().check()
        (done,) = finish(tasks, work)
        assert done.n_bytes == saved.n_bytes
        assert stream(model, "c", PROMPT[:100], 10)[0] == generated
        assert stream(model, "d", PROMPT[3:50], 10)[0] == other


def test_a_restore_yields_to_streams(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tasks_module, "STEP_S", 0.0)
    path = str(tmp_path / "a")
    with load(LLAMA.path, parallel=2) as model:  # 256 cells
        generated, _ = stream(model, "a", PROMPT[:140], 10)
        finish(model.tasks(), SaveSlot(path, [*PROMPT[:140], *generated]))
        model.prefix.evict(256)
        expected, _ = stream(model, "x", PROMPT[:50], 180)
        model.prefix.evict(256)
        scheduler, tasks = model.scheduler(), model.tasks()
        scheduler.submit(request("x", PROMPT[:50], 180))
        tokens: list[int] = []

        def step() -> None:
            tasks.yield_cells()
            for emission in scheduler.step():
                assert emission.error is None
                tokens.extend(token.id for token in emission.tokens)

        for _ in range(60):
            step()
        tasks.submit("0", RestoreSlot(path))
        updates: list[TaskUpdate] = []
        for _ in range(3):  # it has begun, and holds the rest of the cache
            step()
            updates += tasks.step(True)
        assert not any(update.failure for update in updates)
        while scheduler.has_work:
            step()
        updates += tasks.step(False)
        assert updates[-1].failure is not None
        assert updates[-1].failure.kind == "OutOfMemoryError"
        assert tokens == expected
        assert finish(tasks, RestoreSlot(path))[0].n_tokens == 149


KILLED = """
import sys
from support.builders.snapshots import load
from support.builders.golden import golden
from engine.tasks import runner
from engine.tasks.types import SaveSlot
from test_runner import PROMPT, LLAMA, stream
runner.STEP_S = 0.0
with load(LLAMA.path) as model:
    made, _ = stream(model, "a", PROMPT[:100], 10)
    work = model.tasks()
    work.submit("0", SaveSlot(sys.argv[1], [*PROMPT[:100], *made]))
    for step in range(10**6):
        work.step(False)
        print(step, flush=True)
        sys.stdin.readline()
        if not work.has_work:
            break
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.e2e
def test_kill_during_a_save_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with load(LLAMA.path) as model:
        stream(model, "old", PROMPT[:30], 4)
        finish(model.tasks(), SaveSlot(str(path), PROMPT[:30]))
        old = path.read_bytes()
        model.prefix.evict(256)
        root = Path(__file__).parents[3]
        seen = set()
        for n_steps in (1, 3, 10**6):
            process = subprocess.Popen(
                [sys.executable, "-c", KILLED, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PYTHONPATH": f"{Path(__file__).parent}:{root / 'tests'}:{root}", "PATH": "/usr/bin"},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(n_steps):
                if process.stdout.readline() == "done\n":
                    break
                process.stdin.write("\n")
                process.stdin.flush()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            (restored,) = finish(model.tasks(), RestoreSlot(str(path)))
            seen.add(len(restored.tokens))
            if len(restored.tokens) == 30:
                assert path.read_bytes() == old
        assert seen == {30, 110}


def test_a_restore_waits_while_streams_own_all_states(tmp_path: Path) -> None:
    path, prompt = str(tmp_path / "a"), list(golden("qwen35").prompt)
    params = engine.ModelParameters(use_gpu=False, n_threads=1, kv_cells=256, parallel=1, checkpoints=1)
    with engine.load(golden("qwen35").path, params) as model:
        generated, _ = stream(model, "a", prompt, 2)
        (saved,) = finish(model.tasks(), SaveSlot(path, [*prompt, *generated]))
        assert isinstance(saved, Saved)
        states, tasks = model.pool.states, model.tasks()
        assert states is not None
        owned = [states.take() for _ in range(states.n_slots)]
        tasks.submit("0", RestoreSlot(path))
        for _ in range(3):
            tasks.yield_cells()
            assert tasks.step(True) == [TaskUpdate("0")]
        for slot in owned:
            states.free(slot)
        updates: list[TaskUpdate] = []
        while tasks.has_work:
            tasks.yield_cells()
            updates += tasks.step(True)
        assert isinstance(updates[-1].result, Restored)
        owned = [states.take() for _ in range(states.n_slots)]
        (failed,) = finish(tasks, RestoreSlot(path))  # no stream runs that could give one back
        assert "slots for recurrent states are in use" in failed.text


def test_slots_of_an_encoder_are_refused(tmp_path: Path) -> None:
    with engine.load(FOLDER / "bert.gguf", engine.ModelParameters(use_gpu=False, n_threads=1)) as model:
        saved, erased = finish(model.tasks(), SaveSlot(str(tmp_path / "a"), [5, 6]), EraseSlot([5, 6]))
        assert saved.kind == "ConfigError"
        assert erased == Erased(0)
