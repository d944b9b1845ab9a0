"""modules.json and pooling configurations of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.convert.sentence_transformers import EmbeddingSettings, dense_tensors, embedding_settings
from engine.errors import ModelError, UnsupportedModelError

PACKAGE = "sentence_transformers.models"


def write(folder: Path, modules: list[str] | None, **pooling: Any) -> Path:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8} | pooling))
    if modules is not None:
        entries = [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{PACKAGE}.{kind}"}
            for i, kind in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize(
    ("modules", "normalize"),
    [(["Transformer", "Pooling", "Normalize"], True), (["Transformer", "Pooling"], False), (None, None)],
)
@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_embedding_settings_follow_modules_and_pooling(
    modules: list[str] | None, normalize: bool | None, pooling: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert embedding_settings(write(tmp_path, modules, **pooling)) == EmbeddingSettings(expected, normalize)


def test_embedding_settings_of_a_folder_without_modules_are_open(tmp_path: Path) -> None:
    assert embedding_settings(tmp_path) == EmbeddingSettings(None, None)


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (
            ["Transformer", "Pooling", "LayerNorm"],
            {"pooling_mode_mean_tokens": True},
            "module LayerNorm is not supported",
        ),
        (
            ["Transformer", "Dense", "Pooling"],
            {"pooling_mode_mean_tokens": True},
            "must be in the order Transformer, Pooling, Dense, Normalize",
        ),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_max_tokens": True},
            "pooling by max_tokens is not supported",
        ),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling by mean, cls is not supported",
        ),
        (["Transformer", "Pooling"], {}, "pooling by none is not supported"),
    ],
)
def test_embedding_settings_that_change_vectors_are_refused(
    modules: list[str], pooling: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        embedding_settings(write(tmp_path, modules, **pooling))


@pytest.mark.parametrize("text", ["{", "3", '[{"idx": 0}]', "[3]"])
def test_embedding_settings_of_a_damaged_list_name_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules\.json cannot be read"):
        embedding_settings(tmp_path)


def dense(folder: Path, activation: str = "torch.nn.modules.linear.Identity", **tensors: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"activation_function": activation}))
    save_file({"linear.weight": np.ones((3, 2), np.float32)} | tensors, folder / "model.safetensors")
    return folder


def test_dense_modules_are_the_matrices_behind_a_model(tmp_path: Path) -> None:
    folder = write(
        tmp_path, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"], pooling_mode_mean_tokens=True
    )
    settings = embedding_settings(folder)
    assert settings == EmbeddingSettings("mean", True, (folder / "2_Dense", folder / "3_Dense"))
    for place in settings.dense:
        dense(place)
    tensors = dense_tensors(settings.dense, ("dense_2", "dense_3"))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "dense_2.linear.weight": (3, 2),
        "dense_3.linear.weight": (3, 2),
    }
    assert dense_tensors((), ("dense_2", "dense_3")) == {}


def test_dense_modules_that_are_not_plain_matrices_are_refused(tmp_path: Path) -> None:
    tanh = dense(tmp_path / "tanh", "torch.nn.modules.activation.Tanh")
    bias = dense(tmp_path / "bias", **{"linear.bias": np.ones(3, np.float32)})
    flat = dense(tmp_path / "flat", **{"linear.weight": np.ones(3, np.float32)})
    for folder in (tanh, bias, flat):
        with pytest.raises(UnsupportedModelError, match="is not supported"):
            dense_tensors([folder], ["dense_2"])
    for names in ((), ("dense_2", "dense_3")):
        with pytest.raises(UnsupportedModelError, match="1 modules Dense are not supported"):
            dense_tensors([tanh], names)
    with pytest.raises(ModelError, match="is missing"):
        dense_tensors([tmp_path / "other"], ["dense_2"])
