"""The model of the Python interface: what it starts, what it hands on, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import ModelError
from support.builders.gguf import tiny_llama


def load(path: Path, **params: Any) -> engine.Model:
    fields = {"use_gpu": False, "n_threads": 1, "kv_cells": 64, "context_size": 64, **params}
    return engine.load(path, engine.ModelParameters(**fields))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama().write(tmp_path_factory.mktemp("engine") / "tiny.gguf")


@pytest.fixture
def model(path: Path) -> Iterator[engine.Model]:
    with load(path, parallel=3, max_batch_tokens=16) as loaded:
        yield loaded


def test_closed_model_refuses_use(path: Path) -> None:
    model = load(path)
    session = model.start_session()
    model.close()
    model.close()
    with pytest.raises(engine.SessionClosedError):
        model.start_session()
    with pytest.raises(engine.EngineError):
        session.feed_prompt("x")


def test_scheduler_has_the_limits_that_the_model_was_loaded_with(model: engine.Model) -> None:
    config = model.scheduler().config
    assert (config.parallel, config.n_ctx, config.max_batch_tokens) == (3, 64, 16)
    assert config.eog_ids == model.eog_ids == {2}
    assert model.scheduler(parallel=1).config.parallel == 1


def test_a_loaded_model_has_no_tokenizer_before_one_is_needed(model: engine.Model) -> None:
    """One of a large vocabulary takes long to make, and a model for embeddings needs none."""
    assert "tokenizer" not in vars(model)
    model.scheduler()
    assert "tokenizer" in vars(model)


def test_restore_of_a_damaged_session_gives_its_place_back(model: engine.Model, tmp_path: Path) -> None:
    (tmp_path / "saved").write_bytes(b"no session")
    with pytest.raises(ModelError):
        model.restore_session(tmp_path / "saved")
    assert model.pool.n_free == 64
    with model.start_session() as session:
        session.feed_prompt([3, 4])


def test_model_without_causal_attention_starts_nothing_that_generates(
    model: engine.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "hp", replace(model.hp, causal=False))
    assert not model.generates
    for start in (model.scheduler, model.start_session, lambda: model.restore_session("x")):
        with pytest.raises(ModelError, match="a llama model makes embeddings; it cannot generate text"):
            start()


def test_logit_without_a_token_contributes_no_bytes(model: engine.Model) -> None:
    n = model.tokenizer.n_vocab
    assert model._token_bytes(5) == model.tokenizer.token_bytes(5) != b""
    assert model._token_bytes(n) == b""
