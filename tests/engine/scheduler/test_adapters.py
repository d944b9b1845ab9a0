"""Requests with different LoRA adapters: texts are as alone, prefixes are shared within a set only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.config import LoraAdapter
from engine.quantize.quantizer import quantize_file
from engine.tasks.runner import TaskRunner
from engine.tasks.types import (
    AnyTask,
    Embed,
    EraseSlot,
    GetPromptLogprobs,
    RestoreSlot,
    SaveSlot,
    TaskFailure,
    TaskUpdate,
)
from engine.types import AdapterScales, Request
from support.builders.golden import TinyModel, error, matrices
from support.builders.lora import random_parts, write_adapter
from support.fakes.engine import STORIES

SETS: list[AdapterScales] = [(), ((0, 1.0),), ((1, 1.0),), ((0, 1.0), (1, 0.5)), ((0, 0.5),)]
PROMPT = [1, *range(100, 160)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A batch-invariant model and two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    quantize_file(STORIES, folder / "model.gguf", "Q8_0", requantize=True)
    quantize_file(STORIES, folder / "f32.gguf", "F32", requantize=True)
    tiny = TinyModel.read(folder / "f32.gguf")
    paths = [folder / "model.gguf"]
    for seed in (0, 1):
        parts = random_parts(tiny, matrices(tiny), 4, seed)
        paths.append(write_adapter(folder / f"{seed}.gguf", "llama", parts, alpha=2.0))
    return paths


def load(files: list[Path], *adapters: int, **more: object) -> engine.Model:
    lora = tuple(LoraAdapter(str(files[1 + i])) for i in adapters)
    values = {"use_gpu": False, "context_size": 128, "kv_cells": 1024, "n_threads": 1, "parallel": 4, **more}
    return engine.load(files[0], engine.ModelParameters(**values, lora_adapters=lora))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(files: list[Path]) -> Iterator[engine.Model]:
    with load(files, 0, 1) as model:
        yield model


def request(id: str, lora: AdapterScales, n: int = 12, prompt: list[int] = PROMPT) -> Request:
    params = engine.InferenceParameters(temperature=0.0, max_tokens=n, ignore_eos=True)
    return Request(id=id, prompt=prompt, params=params, lora=lora)


def run(model: engine.Model, *requests: Request) -> dict[str, tuple[list[int], int]]:
    """By id: tokens, and how many of the prompt were cached."""
    scheduler = model.scheduler()
    for each in requests:
        scheduler.submit(each)
    tokens: dict[str, list[int]] = {each.id: [] for each in requests}
    cached: dict[str, int] = {}
    while scheduler.has_work:
        for output in scheduler.step():
            tokens[output.id] += [token.id for token in output.tokens]
            assert output.error is None
            if output.finish is not None and output.timings is not None:
                cached[output.id] = output.timings.cached_n
        scheduler.check()
    return {id: (tokens[id], cached[id]) for id in tokens}


def forget(model: engine.Model) -> None:
    model.prefix.evict(model.n_cells)


def alone(model: engine.Model, lora: AdapterScales) -> list[int]:
    forget(model)
    return run(model, request("alone", lora))["alone"][0]


def test_texts_of_a_mixed_batch_match_those_of_requests_that_run_alone(model: engine.Model) -> None:
    expected = [alone(model, lora) for lora in SETS]
    assert len(set(map(tuple, expected))) == len(SETS)
    forget(model)
    texts = run(model, *(request(str(i), lora) for i, lora in enumerate(SETS)))
    assert [texts[str(i)][0] for i in range(len(SETS))] == expected


def test_a_prefix_is_shared_within_a_set_of_adapters_and_scales_only(model: engine.Model) -> None:
    expected = [alone(model, lora) for lora in SETS]
    forget(model)
    for lora, text in zip(SETS, expected, strict=True):
        assert run(model, request("first", lora))["first"] == (text, 0)
    for lora, text in zip(SETS, expected, strict=True):
        assert run(model, request("again", lora))["again"] == (text, len(PROMPT) - 1)


def test_requests_of_one_set_that_start_together_compute_their_prompt_once(model: engine.Model) -> None:
    forget(model)
    texts = run(model, *(request(f"{i}.{j}", SETS[j]) for i, j in itertools.product((0, 1), (1, 2))))
    assert [texts[id][1] for id in ("0.1", "0.2", "1.1", "1.2")] == [0, 0, len(PROMPT) - 1, len(PROMPT) - 1]


def test_preempted_requests_continue_with_their_adapters(files: list[Path]) -> None:
    with load(files, 0, 1, kv_cells=200) as model:
        expected = [alone(model, lora) for lora in SETS[:4]]
        forget(model)
        texts = run(model, *(request(str(i), lora) for i, lora in enumerate(SETS[:4])))
    assert [texts[str(i)][0] for i in range(4)] == expected


def test_a_resumed_request_continues_with_its_adapters(model: engine.Model) -> None:
    for lora in SETS:
        text = alone(model, lora)
        forget(model)
        resumed = request("resumed", lora)
        resumed.generated = text[:5]
        assert run(model, resumed)["resumed"][0] == text[5:]


def test_changing_scales_leave_no_trees_in_the_prefix_cache(model: engine.Model) -> None:
    for i in range(40):
        run(model, request("x", ((0, 1 + i / 64),), n=1))
        forget(model)
    run(model, request("x", (), n=1))
    assert len(model.prefix.roots) <= 2


def test_sessions_use_the_adapters_of_their_config_or_all(files: list[Path]) -> None:
    with load(files, 0, 1) as model:
        rows = {}
        for lora in (None, (), ((0, 1.0),), ((1, 1.0), (0, 1.0))):
            with model.start_session(engine.InferenceSessionConfig(lora=lora)) as session:
                session.feed_prompt(PROMPT)
                rows[lora] = session.last_logits
        np.testing.assert_array_equal(rows[None], rows[(1, 1.0), (0, 1.0)])
        assert (rows[None] != rows[()]).any()
        assert (rows[None] != rows[((0, 1.0),)]).any()


def test_a_saved_session_carries_its_adapters(files: list[Path], tmp_path: Path) -> None:
    lora = ((0, 0.5), (1, -1.0))
    with load(files, 0, 1) as model:
        with model.start_session(engine.InferenceSessionConfig(lora=lora)) as session:
            session.feed_prompt(PROMPT)
            session.save(tmp_path / "saved")
            logits = session.last_logits
            session.feed_prompt([7])
            after = session.last_logits
        forget(model)
        run(model, request("other", ()))  # the same tokens, cached without adapters
    with load(files, 1, 0) as model:  # with other numbers
        with model.restore_session(tmp_path / "saved") as session:
            assert session.lora == ((0, -1.0), (1, 0.5))
            np.testing.assert_array_equal(session.last_logits, logits)
            session.feed_prompt([7])
            assert error(session.last_logits, after) < 1e-5  # the adapters are added in another order
        assert run(model, request("plain", ()))["plain"][1] == 0
    with load(files, 1) as model:
        with pytest.raises(engine.ConfigError, match="uses a LoRA adapter that is not loaded"):
            model.restore_session(tmp_path / "saved")
        model.scheduler().check()


def test_a_saved_session_with_damaged_adapters_is_refused(files: list[Path], tmp_path: Path) -> None:
    with load(files, 0) as model:
        with model.start_session() as session:
            session.feed_prompt(PROMPT)
            session.save(tmp_path / "saved")
        data = (tmp_path / "saved").read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        assert b', 1.0]]"' in data[8:end]
        for bad in (b", NaN]]", b", 1e9]]", b", 1" + b"0" * 400 + b"]]", b", []]]", b"  1.0]]", b", 1.0]"):
            header = data[8:end].replace(b", 1.0]]", bad)
            (tmp_path / "bad").write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
            with pytest.raises(engine.ModelError, match=r"bad: is damaged: .*LoRA adapter"):
                model.restore_session(tmp_path / "bad")
            assert not model.prefix.roots or all(model.prefix.nodes())


def test_a_session_keeps_its_adapters_when_a_restore_fails(files: list[Path], tmp_path: Path) -> None:
    with load(files, 0) as model:
        with model.start_session() as session:
            session.feed_prompt(PROMPT)
            session.save(tmp_path / "saved")
        data = (tmp_path / "saved").read_bytes()
        (tmp_path / "saved").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with model.start_session(engine.InferenceSessionConfig(lora=())) as session:
            with pytest.raises(engine.ModelError, match="checksum"):
                session.restore(tmp_path / "saved")
            assert session.lora == ()


def test_a_saved_session_with_one_adapter_loaded_twice_is_restored(files: list[Path], tmp_path: Path) -> None:
    with load(files, 0, 0) as model:
        config = engine.InferenceSessionConfig(lora=((0, 0.5), (1, 0.25)))
        with model.start_session(config) as session:
            session.feed_prompt(PROMPT)
            session.save(tmp_path / "saved")
        with model.restore_session(tmp_path / "saved") as session:
            assert session.lora == ((0, 0.5), (1, 0.25))


def finish(model: engine.Model, task: AnyTask) -> object:
    tasks = TaskRunner(model)
    tasks.submit("0", task)
    updates: list[TaskUpdate] = []
    while tasks.has_work:
        updates += tasks.step(False)
    end = updates[-1]
    data = b"".join(chunk.data for update in updates for chunk in update.chunks)
    return end.failure or data or end.result


def test_tasks_use_the_adapters_of_their_request(model: engine.Model) -> None:
    for make in (
        lambda lora: Embed([PROMPT], "mean", [], lora),
        lambda lora: GetPromptLogprobs(PROMPT, 0, lora),
    ):
        forget(model)
        results = [finish(model, make(lora)) for lora in SETS]
        assert len({str(result) for result in results}) == len(SETS)
        forget(model)
        assert [finish(model, make(lora)) for lora in reversed(SETS)] == results[::-1]
        failure = finish(model, make(((2, 1.0),)))
        assert isinstance(failure, TaskFailure)
        assert failure.kind == "ConfigError"


def test_saved_slot_records_its_adapters(model: engine.Model, tmp_path: Path) -> None:
    forget(model)
    lora, path = SETS[3], str(tmp_path / "slot")
    text, _ = run(model, request("x", lora))["x"]
    other = finish(model, SaveSlot(path, PROMPT, ()))
    assert isinstance(other, TaskFailure)  # nothing is cached without adapters
    finish(model, SaveSlot(path, PROMPT, lora))
    erased = finish(model, EraseSlot([*PROMPT, *text], lora))
    assert erased.n_tokens > 0  # type: ignore[attr-defined]
    forget(model)
    restored = finish(model, RestoreSlot(path))
    assert restored.lora == lora  # type: ignore[attr-defined]
    assert run(model, request("y", ()))["y"][1] == 0
    assert run(model, request("z", lora))["z"][1] == len(PROMPT) - 1
