"""What cannot be saved, and files that hold no sound session of the model: refused, and nothing changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import engine
from support.builders.golden import TinyModel, golden
from support.builders.snapshots import GREEDY, go_on, load, saved, start
from support.quick import examples


def test_save_of_an_empty_session_is_refused(tmp_path: Path) -> None:
    with load(golden("llama-gqa-tied").path) as model:
        session = start(model)
        with pytest.raises(engine.ConfigError, match="the session is empty"):
            session.save(tmp_path / "saved")
        session.close()
        with pytest.raises(engine.SessionClosedError):
            session.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing/saved", "folder", "nul\0"])
def test_save_to_an_unwritable_path_is_an_error(where: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with load(golden("llama-gqa-tied").path) as model, start(model) as session:
        session.feed_prompt([5, 6])
        with pytest.raises(engine.EngineError, match="the session cannot be saved: "):
            session.save(tmp_path / where)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_failed_save_keeps_the_older_file(tmp_path: Path) -> None:
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


def test_restore_into_another_model_is_refused(tmp_path: Path) -> None:
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


def test_restore_with_another_cache_or_context_is_refused(tmp_path: Path) -> None:
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
    "less computed": (meta("n_past", "103"), "do not match its metadata"),
    "a layer is missing": (lambda header: header.pop("k.1"), "do not match its metadata"),
    "one too many": (
        lambda header: header.update({"k.2": header["k.1"]}),
        "do not match its metadata",
    ),
    "another place": (
        lambda h: h["k.1"].update(data_offsets=[0, 8]),
        "do not match its metadata",
    ),
    "logits that are not there": (
        lambda header: header.update(logits=header["tokens"]),
        "do not match its metadata",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_restore_of_a_damaged_header_is_refused(damage: str, tmp_path: Path) -> None:
    path, (change, text) = tmp_path / "saved", DAMAGE[damage]
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path).close()
        rewritten(path, change)
        refuse(model, path, engine.ModelError, text)


def test_restore_of_tokens_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with load(golden("llama-gqa-tied").path) as model:
        with saved(model, path) as session:
            session._sequence.tokens[50] = 264
            session.save(path)
        refuse(model, path, engine.ModelError, "tokens outside of the vocabulary of 264")


@pytest.mark.parametrize("content", [b"", b"GGUF", bytes(1000), b"\xff" * 1000, b"\2" + bytes(7) + b"[]"])
def test_restore_of_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved").write_bytes(content)
    with load(golden("llama-gqa-tied").path) as model:
        refuse(model, tmp_path / "saved", engine.ModelError, "is not a saved session")
        deep = b"[" * 100_000
        (tmp_path / "saved").write_bytes(len(deep).to_bytes(8, "little") + deep)
        refuse(model, tmp_path / "saved", engine.ModelError, "is not a saved session")


def test_restore_of_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with load(golden("llama-gqa-tied").path) as model:
        refuse(model, tmp_path / "none", engine.ConfigError, "cannot be opened: No such file")
        refuse(model, tmp_path, engine.ConfigError, "is not a regular file")
        refuse(model, tmp_path / "pipe", engine.ConfigError, "is not a regular file")
        refuse(model, Path("a\0b"), engine.ConfigError, re.escape("a\\x00b: the session cannot be opened"))


def test_restore_of_a_shrinking_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with load(golden("llama-gqa-tied").path) as model:
        saved(model, path).close()

        def shrink(fraction: float, text: str) -> None:
            os.truncate(path, 20_000)

        before = model.pool.n_free
        with pytest.raises(engine.ModelError, match="was truncated while it was being read"):
            model.restore_session(path, progress=shrink)
        assert model.pool.n_free == before
        assert not any(model.cache.k[0].get()[: 50 * model.cache.k[0].strides[1]])  # numbers, not garbage


def test_restore_into_a_session_with_tokens_is_refused(tmp_path: Path) -> None:
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


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_detected(whole: Any, data: st.DataObject) -> None:
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
