"""Scores of models for ranking are those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, UnsupportedModelError
from engine.tasks.embedding import embed
from engine.tasks.types import Embed
from support.builders.golden import FOLDER, RANKERS, TinyModel

TOLERANCE = 1e-4


def load(path: Path, **more: object) -> engine.Model:
    return engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=1, **more))  # type: ignore[arg-type]


def reference(name: str) -> tuple[list[int], int, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return arrays["prompt"].tolist(), int(arrays["second"]), arrays["scores"]


def error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    return float(np.abs(got - expected).max())


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
@pytest.mark.parametrize("name", RANKERS)
def test_scores_match_those_of_transformers(name: str, flash_attn: str) -> None:
    prompt, second, scores = reference(name)
    with load(FOLDER / f"{name}.gguf", flash_attn=flash_attn) as model:
        assert model.describe()["pooling"] == "rank"
        assert model.describe()["n_scores"] == len(scores)
        assert error(model.embed(prompt, second=second), scores) < TOLERANCE


@pytest.mark.parametrize("name", RANKERS)
def test_scores_beside_other_requests_are_unchanged(name: str) -> None:
    prompt, second, scores = reference(name)
    inputs = [prompt[:40], prompt, prompt[60:61], prompt]
    with load(FOLDER / f"{name}.gguf", max_batch_tokens=256, context_size=200) as model:
        actual = {
            e.input: e.vector for e in embed(model, inputs, second=[0, second, 0, second]) if e is not None
        }
        assert error(actual[1], scores) < TOLERANCE
        assert error(actual[3], scores) < TOLERANCE
        for i in (0, 2):
            assert error(actual[i], model.embed(inputs[i])) < TOLERANCE


def test_rankers_embed_too() -> None:
    """In one queue, though not in one batch."""
    prompt, second, scores = reference("bert-rank")
    with load(FOLDER / "bert-rank.gguf") as model:
        states = model.embed(prompt, pooling="none", normalize=False, second=second)
        assert states.shape == (len(prompt), model.hp.n_embd)
        assert (
            error(model.embed(prompt, pooling="cls", normalize=False, second=second), states[0]) < TOLERANCE
        )
        tasks = model.tasks()
        tasks.submit("a", Embed([prompt[:5]] * 3, "mean"))
        tasks.submit("b", Embed([prompt], "rank", [second]))
        actual: dict[str, list[bytes]] = {"a": [], "b": []}
        while tasks.has_work:
            for updates in tasks.step(False):
                actual[updates.id] += [piece.data for piece in updates.chunks]
        assert error(np.frombuffer(actual["b"][0], "<f4"), scores) < TOLERANCE
        assert [len(data) for data in actual["a"]] == [4 * model.hp.n_embd] * 3


def test_scores_depend_on_token_types_if_there_are_two() -> None:
    for name in RANKERS:
        prompt, second, scores = reference(name)
        with load(FOLDER / f"{name}.gguf") as model:
            alone = model.embed(prompt)
            if model.hp.n_token_types > 1:
                assert error(alone, scores) > 100 * TOLERANCE
                assert error(model.embed(prompt, second=second - 1), scores) > TOLERANCE
            else:
                assert error(alone, scores) < TOLERANCE


def test_single_token_type_stored_as_a_vector_is_read(tmp_path: Path) -> None:
    prompt, second, scores = reference("xlm-roberta-rank")
    model = TinyModel.read(FOLDER / "xlm-roberta-rank.gguf")
    assert model.tensors["token_types.weight"].shape == (1, 32)
    model.tensors["token_types.weight"] = model.tensors["token_types.weight"][0]
    with load(model.write(tmp_path / "model.gguf")) as loaded:
        assert error(loaded.embed(prompt, second=second), scores) < TOLERANCE


@pytest.mark.parametrize("left_out", ["cls.weight", "cls.output.weight"])
def test_classification_head_of_one_layer_is_applied(left_out: str, tmp_path: Path) -> None:
    prompt, second, _ = reference("bert-rank")
    whole = TinyModel.read(FOLDER / "bert-rank.gguf")
    tensors = whole.tensors
    with load(FOLDER / "bert-rank.gguf") as model:
        state = model.embed(prompt, pooling="cls", normalize=False, second=second)
    for name in (left_out, left_out.replace("weight", "bias")):
        del tensors[name]
    if left_out == "cls.weight":
        expected = tensors["cls.output.weight"] @ state + tensors["cls.output.bias"]
    else:
        expected = np.tanh(tensors["cls.weight"] @ state + tensors["cls.bias"])
    with load(whole.write(tmp_path / "model.gguf")) as model:
        assert error(model.embed(prompt, second=second), expected.astype(np.float32)) < TOLERANCE


def test_rank_without_a_classification_head_is_refused(tmp_path: Path) -> None:
    with load(FOLDER / "bert.gguf") as model:
        assert model.describe()["n_scores"] == 0
        with pytest.raises(ConfigError, match="no classification head"):
            model.embed([5, 6], pooling="rank")
    named = TinyModel.read(FOLDER / "bert.gguf")
    named.set("pooling_type", 4)
    with load(named.write(tmp_path / "model.gguf")) as model:
        with pytest.raises(ConfigError, match="no classification head"):
            model.embed([5, 6])
        assert model.embed([5, 6], pooling="mean").shape == (model.hp.n_embd,)


def test_a_head_that_a_decoder_would_not_use_is_refused(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    model.tensors["cls.output.weight"] = np.ones((1, 64), np.float32)
    with pytest.raises(UnsupportedModelError, match=r"cls\.output"):
        load(model.write(tmp_path / "model.gguf"))


MISTAKES = {
    "no bias of the head": "cls.bias",
    "no bias of the scores": "cls.output.bias",
    "no dense layer": "cls.weight",
}


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_the_graph_is_detected(mistake: str, name: str, tmp_path: Path) -> None:
    prompt, second, scores = reference(name)
    model = TinyModel.read(FOLDER / f"{name}.gguf")
    del model.tensors[MISTAKES[mistake]]
    if mistake == "no dense layer":
        del model.tensors["cls.bias"]
    with load(model.write(tmp_path / "changed.gguf")) as loaded:
        assert error(loaded.embed(prompt, second=second), scores) > 100 * TOLERANCE
