"""Sessions on disk: what is restored goes on exactly as the session that was saved."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

import engine
from engine.cache import session_file as snapshot
from engine.cache.cached_sequence import CachedSequence
from engine.types import Request
from support.builders.golden import NAMES, REPRESENTATIVES, golden
from support.builders.snapshots import go_on, load, saved, start
from support.quick import matrix
from support.references.greedy import request, run

ATTENTION = ("auto", "on", "off")
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
DRAWN = engine.InferenceParameters(temperature=1.0, seed=7, max_tokens=5, ignore_eos=True)


def check_continuation(ref_path: Path, prompt: list[int], path: Path, **params: Any) -> None:
    with load(ref_path, **params) as model, start(model) as session:
        session.feed_prompt(prompt)
        for _ in session.infer(DRAWN):
            pass
        session.save(path)
        tokens, expected = session.tokens, go_on(session)
    with load(ref_path, **params) as model, model.restore_session(path, session.config) as again:
        assert (again.tokens, again.n_past) == (tokens, len(tokens) - 1)
        assert go_on(again) == expected


@pytest.mark.parametrize("flash_attn", ATTENTION)
@pytest.mark.parametrize("name", matrix(NAMES, REPRESENTATIVES.__contains__))
def test_restored_session_of_every_architecture_continues_alike(
    name: str, flash_attn: str, tmp_path: Path
) -> None:
    ref = golden(name)
    check_continuation(ref.path, ref.prompt[:100], tmp_path / "saved", flash_attn=flash_attn)


@pytest.mark.parametrize("flash_attn", ATTENTION)
@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_restored_session_of_every_cache_type_continues_alike(
    kv_type: str, flash_attn: str, tmp_path: Path
) -> None:
    ref = golden("llama-head-64")
    if flash_attn == "off" and kv_type not in ("f32", "f16", "bf16"):
        with pytest.raises(engine.ConfigError, match="needs flash attention"):
            load(ref.path, kv_type=kv_type, flash_attn=flash_attn)
        return
    check_continuation(ref.path, ref.prompt, tmp_path / "saved", kv_type=kv_type, flash_attn=flash_attn)


def test_saved_session_keeps_the_logits_after_the_prompt(tmp_path: Path) -> None:
    """Computing the last token again, alone, could round differently than within its prompt."""
    ref = golden("llama-gqa-tied")
    with load(ref.path) as model:
        with start(model) as session:
            session.feed_prompt(ref.prompt)
            session.save(tmp_path / "saved")
            expected = session.last_logits
        with model.restore_session(tmp_path / "saved") as session:
            assert session.n_past == len(session.tokens) == len(ref.prompt)
            n_batches = model.runner.graphs_built
            assert np.array_equal(session.last_logits, expected)
            assert model.runner.graphs_built == n_batches


def test_restore_of_scattered_cells_continues_alike(tmp_path: Path) -> None:
    """Neither the saved nor the restored cells lie in one run, and they are others."""
    ref = golden("llama-gqa-tied")
    with load(ref.path, kv_cells=512) as model:
        model.pool.alloc(512)
        model.pool.free(range(3, 500, 2))
        with start(model) as session:
            session.feed_prompt(ref.prompt[:100])
            cells = session._sequence.cells[:]
            assert cells[:3] == array("i", [3, 5, 7])
            session.save(tmp_path / "saved")
            with model.restore_session(tmp_path / "saved", session.config) as again:
                assert set(again._sequence.cells).isdisjoint(cells)
                assert go_on(again) == go_on(session)


def test_restored_session_shares_cells_with_the_prefix_cache(tmp_path: Path) -> None:
    ref, path = golden("llama-gqa-tied"), tmp_path / "saved"
    with load(ref.path) as model:
        with start(model, cache_prompt=True) as session:
            session.feed_prompt(ref.prompt)
            session.save(path)
            with model.restore_session(path) as shared:  # all but the last token
                assert shared._sequence.cells[:-1] == session._sequence.cells[:-1]
                assert go_on(shared) == go_on(session)
        model.prefix.check()
        model.pool.check()
        assert model.pool.n_free + model.prefix.n_cells == 256
    with load(ref.path) as model:
        with model.restore_session(path) as restored, start(model, cache_prompt=True) as other:
            other.feed_prompt(ref.prompt)
            assert other._sequence.cells[:-1] == restored._sequence.cells[:-1]
        with model.restore_session(path, engine.InferenceSessionConfig(cache_prompt=False)) as private:
            assert set(private._sequence.cells).isdisjoint(
                cell for n in model.prefix.nodes() for cell in n.cells
            )
            assert private._sequence.node is None
        model.prefix.check()
        assert model.pool.n_free + model.prefix.n_cells == 256


def test_restore_evicts_prefixes_but_not_sessions(tmp_path: Path) -> None:
    ref, path = golden("llama-gqa-tied"), tmp_path / "saved"
    with load(ref.path) as model:
        saved(model, path).close()
        with start(model, cache_prompt=True) as session:
            session.feed_prompt([7] * 250)
        assert model.pool.n_free == 6
        private = engine.InferenceSessionConfig(cache_prompt=False)
        with model.restore_session(path, private) as session:
            assert session.n_past == 104
        with start(model) as session:
            session.feed_prompt([7] * 200)
            with pytest.raises(engine.OutOfMemoryError, match="104 cells of the KV cache are needed"):
                model.restore_session(path)
            model.prefix.check()
            assert model.pool.n_free + model.prefix.n_cells == 56


def test_sequence_of_a_scheduler_can_be_saved(tmp_path: Path) -> None:
    """A running request is saved; another engine finds its prefix and goes on to the same text."""
    ref, path = golden("llama-gqa-tied"), tmp_path / "saved"
    requested = request("x", ref.prompt[:80], n=24, n_batch=32)
    with load(ref.path) as model:
        whole = run(model.scheduler(), [requested])["x"]
    with load(ref.path) as model:
        scheduler = model.scheduler()
        scheduler.submit(request("x", ref.prompt[:80], n=24, n_batch=32))
        for _ in range(10):
            scheduler.step()
        (session,) = scheduler.queues.running
        assert session.n_generated > 3
        snapshot.save(path, model, session)
        tokens = session.tokens[:]
    with load(ref.path) as model:
        sequence = CachedSequence(model.pool, model.prefix)
        assert snapshot.restore(path, model, sequence) is None
        assert sequence.tokens == tokens
        sequence.release()
        scheduler = model.scheduler()
        generated = tokens[80:].tolist()
        rest = Request(id="x", prompt=ref.prompt[:80], generated=generated, params=requested.params)
        result = run(scheduler, [rest])["x"]
        assert result.timings.cached_n == 79
        assert generated + result.tokens == whole.tokens


def test_the_file_is_in_the_safetensors_format(tmp_path: Path) -> None:
    with load(golden("llama-gqa-tied").path) as model, saved(model, tmp_path / "saved") as session:
        with safetensors.safe_open(tmp_path / "saved", "numpy") as file:
            assert file.metadata()["kv_type"] == "f32"
            assert file.get_tensor("tokens").tolist() == session.tokens
            assert sorted(file.keys()) == ["k.0", "k.1", "tokens", "v.0", "v.1"]
            keys = file.get_tensor("k.1")
        table, cells = model.cache.k[1], session._sequence.cells
        rows = np.frombuffer(table.get(), np.uint8).reshape(-1, table.strides[1])
        assert np.array_equal(keys, rows[np.array(cells)])


def test_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PIECE", 1 << 11)
    fractions: list[float] = []
    with load(golden("llama-gqa-tied").path) as model, saved(model, tmp_path / "saved") as session:
        session.save(tmp_path / "saved", lambda f, text: fractions.append(f))
        assert len(fractions) > 10
        assert fractions == sorted(fractions)
        assert fractions.pop() == 1
        fractions.clear()
        with model.restore_session(tmp_path / "saved", progress=lambda f, text: fractions.append(f)) as again:
            assert fractions == sorted(fractions)
            assert fractions.pop() == 1
            assert go_on(again) == go_on(session)
