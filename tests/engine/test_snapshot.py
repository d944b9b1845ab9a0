"""Sessions on disk: what is restored goes on exactly as the session that was saved; all else is refused."""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import engine
from engine import snapshot
from engine.session import CachedSequence
from engine.types import Request
from support.golden import NAMES, TinyModel, golden
from support.greedy import request, run

ATTENTION = ("auto", "on", "off")
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
GREEDY = engine.InferenceParameters(temperature=0.0, max_tokens=12, ignore_eos=True)
DRAWN = engine.InferenceParameters(temperature=1.0, seed=7, max_tokens=5, ignore_eos=True)


def load(path: Path, **params: Any) -> engine.Model:
    defaults = {"use_gpu": False, "context_size": 256, "kv_cells": 256, "n_threads": 1, "kv_type": "f32"}
    return engine.load(path, engine.ModelParameters(**{**defaults, **params}))


def start(model: engine.Model, cache_prompt: bool = False) -> engine.InferenceSession:
    return model.start_session(engine.InferenceSessionConfig(n_batch=64, cache_prompt=cache_prompt))


def go_on(session: engine.InferenceSession) -> list[Any]:
    """Everything that a session can do next: logits, generated tokens, another prompt, a step back."""
    found: list[Any] = [session.last_logits.tolist()]
    found += [(token.id, token.logprob) for token in session.infer(GREEDY)]
    session.feed_prompt([9, 8, 7, 6, 5])
    found.append(session.last_logits.tolist())
    session.rewind(3)
    found.append(session.last_logits.tolist())
    return [*found, session.tokens]


def saved(model: engine.Model, path: Path, n: int = 100, generated: int = 5) -> engine.InferenceSession:
    """A session of `n` prompt tokens and some more that were drawn, on disk and still open."""
    session = start(model)
    session.feed_prompt(golden("llama-gqa-tied").prompt[:n])
    for _ in session.infer(engine.InferenceParameters(seed=7, max_tokens=generated, ignore_eos=True)):
        pass
    assert session.save(path) == path.stat().st_size
    return session


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
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_goes_on(name: str, flash_attn: str, tmp_path: Path) -> None:
    ref = golden(name)
    check_continuation(ref.path, ref.prompt[:100], tmp_path / "saved", flash_attn=flash_attn)


@pytest.mark.parametrize("flash_attn", ATTENTION)
@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_every_type_of_cache(kv_type: str, flash_attn: str, tmp_path: Path) -> None:
    ref = golden("llama-head-64")
    if flash_attn == "off" and kv_type not in ("f32", "f16", "bf16"):
        with pytest.raises(engine.ConfigError, match="needs flash attention"):
            load(ref.path, kv_type=kv_type, flash_attn=flash_attn)
        return
    check_continuation(ref.path, ref.prompt, tmp_path / "saved", kv_type=kv_type, flash_attn=flash_attn)


def test_the_logits_after_a_prompt_are_kept(tmp_path: Path) -> None:
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


def test_scattered_cells(tmp_path: Path) -> None:
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


def test_cells_and_prefix_cache(tmp_path: Path) -> None:
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


def test_prefixes_make_room_and_sessions_do_not(tmp_path: Path) -> None:
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


def test_a_session_of_a_scheduler(tmp_path: Path) -> None:
    """A running request is saved; another engine finds its prefix and goes on to the same text."""
    ref, path = golden("llama-gqa-tied"), tmp_path / "saved"
    asked = request("x", ref.prompt[:80], n=24, n_batch=32)
    with load(ref.path) as model:
        whole = run(model.scheduler(), [asked])["x"]
    with load(ref.path) as model:
        scheduler = model.scheduler()
        scheduler.submit(request("x", ref.prompt[:80], n=24, n_batch=32))
        for _ in range(10):
            scheduler.step()
        (session,) = scheduler._admission.running
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
        rest = Request(id="x", prompt=ref.prompt[:80], generated=generated, params=asked.params)
        found = run(scheduler, [rest])["x"]
        assert found.timings.cached_n == 79
        assert generated + found.tokens == whole.tokens


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


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PIECE", 1 << 12)
    heard: list[float] = []
    with load(golden("llama-gqa-tied").path) as model, saved(model, tmp_path / "saved") as session:
        session.save(tmp_path / "saved", lambda f, text: heard.append(f))
        assert len(heard) > 10
        assert heard == sorted(heard)
        assert heard.pop() == 1
        heard.clear()
        with model.restore_session(tmp_path / "saved", progress=lambda f, text: heard.append(f)) as again:
            assert heard == sorted(heard)
            assert heard.pop() == 1
            assert go_on(again) == go_on(session)


# --- what cannot be saved or restored


def test_nothing_to_save(tmp_path: Path) -> None:
    with load(golden("llama-gqa-tied").path) as model:
        session = start(model)
        with pytest.raises(engine.ConfigError, match="the session is empty"):
            session.save(tmp_path / "saved")
        session.close()
        with pytest.raises(engine.SessionClosedError):
            session.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing/saved", "folder", "nul\0"])
def test_a_place_that_cannot_be_written(where: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with load(golden("llama-gqa-tied").path) as model, start(model) as session:
        session.feed_prompt([5, 6])
        with pytest.raises(engine.EngineError, match="the session cannot be saved: "):
            session.save(tmp_path / where)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_older_file_stays_if_saving_fails(tmp_path: Path) -> None:
    path = tmp_path / "saved"

    def stop(fraction: float, text: str) -> None:
        raise KeyboardInterrupt

    with load(golden("llama-gqa-tied").path) as model, saved(model, path) as session:
        before = path.read_bytes()
        session.feed_prompt([1, 2, 3])
        with pytest.raises(KeyboardInterrupt):
            session.save(path, stop)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def refuse(model: engine.Model, path: Path, error: type[Exception], text: str) -> None:
    """The error, on one line, and a model that is as it was."""
    before = model.pool.n_free, model.prefix.n_cells, model.prefix.n_evictable
    with pytest.raises(error, match=text) as raised:
        model.restore_session(path)
    assert "\n" not in str(raised.value)
    assert (model.pool.n_free, model.prefix.n_cells, model.prefix.n_evictable) == before
    model.pool.check()
    model.prefix.check()


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header, and leave the data."""
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + n :])


def meta(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["__metadata__"].update({key: value})


def test_another_model(tmp_path: Path) -> None:
    path, tiny = tmp_path / "saved", TinyModel.read(golden("llama-gqa-tied").path)
    tiny.set("rope.freq_base", 20_000.0)
    other_key = tiny.write(tmp_path / "key.gguf")
    tiny = TinyModel.read(golden("llama-gqa-tied").path)
    tiny.tensors["blk.1.attn_k.weight"] += 0.01
    other_weights = tiny.write(tmp_path / "weights.gguf")
    tiny = TinyModel.read(golden("llama-gqa-tied").path)
    tiny.keys["general.name"] = ("renamed", 8, None)
    renamed = tiny.write(tmp_path / "renamed.gguf")
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path).close()
    for other in (other_key, other_weights, golden("llama-mqa").path):
        with load(other) as model:
            refuse(model, path, engine.ModelError, "was saved with another model file; load the one")
    with load(golden("gpt2").path) as model:
        refuse(model, path, engine.ModelError, "was saved with a llama model; load the one")
    with load(renamed) as model, model.restore_session(path) as session:
        assert session.n_past == 104


def test_another_cache_or_context(tmp_path: Path) -> None:
    path, model_path = tmp_path / "saved", golden("llama-head-64").path
    with load(model_path, kv_type="q4_0") as model:
        saved(model, path).close()
    with load(model_path, kv_type="iq4_nl") as model:  # rows of the same size
        refuse(
            model,
            path,
            engine.ConfigError,
            "was saved with --kv-type q4_0, but the model is loaded with iq4_nl",
        )
        rewritten(path, meta("kv_type", "iq4_nl"))
        refuse(model, path, engine.ModelError, "checksum")
    with load(model_path) as model:
        saved(model, path).close()
    with load(model_path, context_size=104) as model:
        refuse(model, path, engine.ConfigError, "105 tokens, but the model is loaded with a context of 104")
    with load(model_path, context_size=105) as model, model.restore_session(path) as session:
        assert session.last_logits.shape == (264,)
        assert list(session.infer(GREEDY)) == []  # it is full


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (meta("format", "pt"), "is not a saved session"),
    "no metadata": (lambda header: header.pop("__metadata__"), "is not a saved session"),
    "metadata of a wrong kind": (lambda header: header.update(__metadata__=[]), "is not a saved session"),
    "a later version": (meta("version", "2\n\x1b"), "is a saved session of version 2"),
    "a negative number": (meta("n_past", "-1"), "is damaged: its header"),
    "no number": (meta("n_past", "many"), "is damaged: its header"),
    "more computed than there is": (meta("n_past", "106"), "is damaged: its header"),
    "a checksum of a wrong kind": (meta("checksum", "\ud800" * 64), "is damaged: its header"),
    "another checksum": (meta("checksum", "0" * 64), "its checksum is wrong"),
    "no tokens": (lambda header: header.pop("tokens"), "is damaged: its header"),
    "a fraction of tokens": (lambda h: h["tokens"].update(shape=[105.0]), "is damaged: its header"),
    "infinitely many": (lambda h: h["tokens"].update(shape=[float("inf")]), "is damaged: its header"),
    "two dimensions": (lambda header: header["tokens"].update(shape=[105, 1]), "is damaged: its header"),
    "less computed": (meta("n_past", "103"), "its tensors are not those"),
    "a layer is missing": (lambda header: header.pop("k.1"), "its tensors are not those"),
    "one too many": (lambda header: header.update({"k.2": header["k.1"]}), "its tensors are not those"),
    "another place": (lambda h: h["k.1"].update(data_offsets=[0, 8]), "its tensors are not those"),
    "logits that are not there": (
        lambda header: header.update(logits=header["tokens"]),
        "its tensors are not those",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_header(damage: str, tmp_path: Path) -> None:
    path, (change, text) = tmp_path / "saved", DAMAGE[damage]
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path).close()
        rewritten(path, change)
        refuse(model, path, engine.ModelError, text)


def test_tokens_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with load(golden("llama-gqa-tied").path) as model:
        with saved(model, path) as session:
            session._sequence.tokens[50] = 264
            session.save(path)
        refuse(model, path, engine.ModelError, "tokens outside of the vocabulary of 264")


@pytest.mark.parametrize("content", [b"", b"GGUF", bytes(1000), b"\xff" * 1000, b"\2" + bytes(7) + b"[]"])
def test_something_else(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved").write_bytes(content)
    with load(golden("llama-gqa-tied").path) as model:
        refuse(model, tmp_path / "saved", engine.ModelError, "is not a saved session")
        deep = b"[" * 100_000
        (tmp_path / "saved").write_bytes(len(deep).to_bytes(8, "little") + deep)
        refuse(model, tmp_path / "saved", engine.ModelError, "is not a saved session")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with load(golden("llama-gqa-tied").path) as model:
        refuse(model, tmp_path / "none", engine.ConfigError, "cannot be opened: No such file")
        refuse(model, tmp_path, engine.ConfigError, "is not a regular file")
        refuse(model, tmp_path / "pipe", engine.ConfigError, "is not a regular file")
        refuse(model, Path("a\0b"), engine.ConfigError, re.escape("a\\x00b: the session cannot be opened"))


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path).close()

        def shrink(fraction: float, text: str) -> None:
            os.truncate(path, 40_000)

        before = model.pool.n_free
        with pytest.raises(engine.ModelError, match="became shorter while it was read"):
            model.restore_session(path, progress=shrink)
        assert model.pool.n_free == before
        assert not any(model.cache.k[0].get()[: 50 * model.cache.k[0].strides[1]])  # numbers, not garbage


def test_only_an_empty_session_becomes_another(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with load(golden("llama-gqa-tied").path) as model, saved(model, path) as session:
        with pytest.raises(engine.ConfigError, match="start a new one"):
            session.restore(path)
        with start(model) as other:
            (tmp_path / "bad").write_bytes(path.read_bytes()[:-1] + b"\0")
            with pytest.raises(engine.ModelError, match="checksum"):
                other.restore(tmp_path / "bad")
            assert other.tokens == []
            other.restore(path)
            assert go_on(other) == go_on(session)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("snapshot") / "saved"
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path, n=20).close()
        yield model, path.read_bytes(), path


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_noticed(whole: Any, data: st.DataObject) -> None:
    model, content, path = whole
    kind = data.draw(st.sampled_from(["cut", "flip", "header", "insert"]))
    end = 8 + int.from_bytes(content[:8], "little") if kind == "header" else len(content)
    at = data.draw(st.integers(0, end - 1))
    damaged = bytearray(content)
    if kind == "cut":
        del damaged[at:]
    elif kind == "insert":
        damaged[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        damaged[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    with pytest.raises((engine.ModelError, engine.ConfigError)):
        model.restore_session(path)
    assert model.pool.n_free == 256
    path.write_bytes(content)
    with model.restore_session(path, engine.InferenceSessionConfig(cache_prompt=False)) as session:
        assert session.n_past == 24
