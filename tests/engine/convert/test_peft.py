"""PEFT folders as GGUF adapters. What they compute: tests/engine/nn/test_low_rank.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.convert import peft
from engine.errors import ConfigError, EngineError, ModelError, UnsupportedModelError
from support.builders.golden import FOLDER

BASE = FOLDER / "hf" / "llama"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / "lora" / "attention", tmp_path / "attention"))


def settings(folder: Path, **values: Any) -> None:
    path = folder / peft.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    stored = load_file(folder / peft.TENSORS)
    change(stored)
    save_file(stored, folder / peft.TENSORS)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return keys, {str(t.name): np.array(t.data) for t in reader.tensors}


def test_the_file_has_the_keys_and_tensors_that_llama_cpp_reads(folder: Path, tmp_path: Path) -> None:
    assert peft.convert(folder, tmp_path / "lora.gguf", base=BASE) == []
    keys, written = read(tmp_path / "lora.gguf")
    assert keys == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "attention",
        "adapter.type": "lora",
        "adapter.lora.alpha": 6.0,
    }
    assert set(written) == {
        f"blk.{i}.attn_{part}.weight.lora_{end}"
        for i in (0, 1)
        for part in ("q", "k", "v", "output")
        for end in "ab"
    }
    stored = load_file(folder / peft.TENSORS)
    np.testing.assert_array_equal(written["blk.0.attn_q.weight.lora_a"], stored[f"{Q}A.weight"])
    b = stored[f"{Q}B.weight"].reshape(2, 2, 8, 4).swapaxes(1, 2).reshape(32, 4)  # pairs are adjacent
    np.testing.assert_array_equal(written["blk.0.attn_q.weight.lora_b"], b)


def test_base_model_named_by_the_adapter_is_used_if_it_is_a_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names the base model 'example/llama'.*--base"):
        peft.convert(folder, tmp_path / "lora.gguf")
    settings(folder, base_model_name_or_path=str(BASE))
    peft.convert(folder, tmp_path / "lora.gguf")


def test_saved_embeddings_of_the_base_model_are_ignored(folder: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    tensors(folder, lambda t: t.update({name: np.zeros((3, 32), np.float32)}))
    peft.convert(folder, tmp_path / "lora.gguf", base=BASE)
    assert not [name for name in read(tmp_path / "lora.gguf")[1] if "token_embd" in name]


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_convert_with_a_type_writes_all_tensors_in_it(type: str, folder: Path, tmp_path: Path) -> None:
    peft.convert(folder, tmp_path / "lora.gguf", base=BASE, type=type)
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "lora.gguf").tensors}
    assert kinds == {type.upper()}


def test_invalid_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q4_0: an adapter is one of f32, f16, bf16"):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE, type="q4_0")
    (tmp_path / "lora.gguf").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE)
    assert (tmp_path / "lora.gguf").read_text() == "mine"
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        peft.convert(folder, tmp_path / "new.gguf", base=tmp_path)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"peft_type": "IA3"}, UnsupportedModelError, "peft_type 'IA3' is not supported"),
        ({"use_dora": True}, UnsupportedModelError, "use_dora True"),
        ({"bias": "all"}, UnsupportedModelError, "bias 'all'"),
        ({"lora_bias": True}, UnsupportedModelError, "lora_bias True"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedModelError, "modules_to_save"),
        ({"alora_invocation_tokens": [1]}, UnsupportedModelError, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa"}, UnsupportedModelError, "init_lora_weights 'pissa'"),
        ({"lora_alpha": "6"}, ModelError, "lora_alpha is 6; it must be a number"),
        ({"lora_alpha": None}, ModelError, "lora_alpha is None"),
        ({"alpha_pattern": {"q_proj": True}}, ModelError, "alpha_pattern is True"),
        ({"alpha_pattern": {"(": 1}}, ModelError, "alpha_pattern"),
        ({"alpha_pattern": [1]}, ModelError, "alpha_pattern is not an object"),
    ],
)
def test_settings_that_change_what_is_computed_are_refused(
    values: dict[str, Any], kind: type[EngineError], message: str, folder: Path, tmp_path: Path
) -> None:
    settings(folder, **values)
    with pytest.raises(kind, match=message):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE)
    assert not (tmp_path / "lora.gguf").exists()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda t: t.pop(f"{Q}A.weight"), ModelError, "q_proj there is lora_B alone"),
        (lambda t: t.update(x=np.zeros(3, np.float32)), UnsupportedModelError, "tensor x is not a part"),
        (lambda t: t.update({f"{Q}A.weight": np.zeros((4, 5), np.int32)}), UnsupportedModelError, "type I32"),
        (lambda t: t.update({f"{Q}A.weight": np.zeros((3, 32), np.float32)}), ModelError, "do not fit"),
        (lambda t: t.update({f"{Q}B.weight": np.zeros((31, 4), np.float32)}), ModelError, "q_proj of shape"),
        (
            lambda t: t.update({f"{Q}A.weight": np.full((4, 32), np.nan, np.float32)}),
            ModelError,
            "not finite",
        ),
        (lambda t: t.clear(), ModelError, "has no tensors"),
        (
            lambda t: t.update({name.replace("q_proj", "r_proj"): t.pop(name) for name in list(t)}),
            UnsupportedModelError,
            r"r_proj is not part of llama models",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[dict[str, np.ndarray]], object],
    kind: type[EngineError],
    message: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    tensors(folder, change)
    with pytest.raises(kind, match=message):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE)


def test_a_folder_without_weights_and_a_damaged_one_are_refused(folder: Path, tmp_path: Path) -> None:
    data = (folder / peft.TENSORS).read_bytes()
    (folder / peft.TENSORS).write_bytes(data[:-100])
    with pytest.raises(ModelError, match=r"damaged|does not fit"):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE)
    (folder / peft.TENSORS).unlink()
    (folder / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match=r"safetensors is missing; adapter_model\.bin can run code"):
        peft.convert(folder, tmp_path / "lora.gguf", base=BASE)


def test_a_matrix_that_is_stored_transposed_is_refused(folder: Path, tmp_path: Path) -> None:
    def gpt2(stored: dict[str, np.ndarray]) -> None:
        stored.clear()
        stored["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"] = np.ones((2, 32), np.float32)
        stored["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"] = np.ones((96, 2), np.float32)

    tensors(folder, gpt2)
    with pytest.raises(UnsupportedModelError, match="another order of columns"):
        peft.convert(folder, tmp_path / "lora.gguf", base=FOLDER / "hf" / "gpt2")
