"""Values that a graph does not honour stop the load, by the name of their key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.errors import ConfigError, ModelError, UnsupportedModelError
from engine.nn.hparams_reader import NEUTRAL
from support.builders.golden import FOLDER, TinyModel, golden

REFUSED = [
    ("llama-gqa-tied", "attention.clamp_kqv", 1.0),
    ("llama-gqa-tied", "rope.scaling.type", "longrope"),
    ("falcon-7b", "tensor_data_layout", "other"),
    ("qwen2moe", "expert_weights_norm", True),
    ("qwen3moe", "expert_weights_norm", False),
    ("qwen2", "attention.sliding_window", 4096),
    ("qwen2", "attention.causal", False),
    ("gemma", "final_logit_softcapping", 30.0),
    ("gptneox", "attention.max_alibi_bias", 8.0),
    ("stablelm", "logit_scale", 0.5),
    ("llama", "residual_scale", 0.5),
    ("mixtral", "expert_weights_scale", 2.0),
    ("qwen3moe", "leading_dense_block_count", 1),
    ("bert", "attn_logit_softcapping", 50.0),
    ("deepseek2", "attention.key_length", 64),
    ("glm4moe", "expert_gating_func", 4),
    ("mixtral", "expert_gating_func", 2),
    ("ernie4_5-moe", "interleave_moe_layer_step", 2),
    ("olmoe", "expert_weights_norm", True),
    ("phimoe", "expert_used_count", 3),
]


def load(path: Path, **more: Any) -> None:
    engine.load(path, engine.ModelParameters(use_gpu=False, n_threads=1, **more)).close()


def logits(path: Path) -> np.ndarray:
    params = engine.ModelParameters(use_gpu=False, n_threads=1)
    with engine.load(path, params) as model, model.start_session() as session:
        session.feed_prompt([5, 9, 3, 7])
        return session.last_logits


def test_keys_and_values_of_latents_in_one_matrix_are_refused_with_advice(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "deepseek2.gguf")
    for i in range(2):
        k, v = (model.tensors.pop(f"blk.{i}.attn_{part}_b.weight") for part in "kv")
        both = np.concatenate([k.swapaxes(1, 2), v], axis=1)
        model.tensors[f"blk.{i}.attn_kv_b.weight"] = both.reshape(-1, both.shape[-1])
    with pytest.raises(UnsupportedModelError, match=r"attn_kv_b is one tensor.*download or convert"):
        load(model.write(tmp_path / "old.gguf"))


@pytest.mark.parametrize(("name", "key", "value"), REFUSED)
def test_a_value_is_refused_by_its_key(name: str, key: str, value: Any, tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / f"{name}.gguf")
    kind = {bool: 7, int: 4, float: 6, str: 8}[type(value)]
    arch = model.keys["general.architecture"][0]
    model.keys[f"{arch}.{key}"] = (value, kind, None)
    with pytest.raises(UnsupportedModelError, match=rf"{arch}\.{key} is {value!r}.*supported"):
        load(model.write(tmp_path / "changed.gguf"))


@pytest.mark.parametrize("key", NEUTRAL)
def test_neutral_value_is_accepted_without_effect(key: str, tmp_path: Path) -> None:
    original = golden("phi2").path
    model = TinyModel.read(original)
    value = NEUTRAL[key][0]
    model.keys[f"phi2.{key}"] = (value, {bool: 7, int: 4, float: 6}[type(value)], None)
    np.testing.assert_array_equal(logits(model.write(tmp_path / "same.gguf")), logits(original))


@pytest.mark.parametrize("kind", ["long", "short"])
def test_factors_of_one_length_alone_are_refused(kind: str, tmp_path: Path) -> None:
    model = TinyModel.read(golden("phi3-long").path)
    del model.tensors[f"rope_factors_{kind}.weight"]
    with pytest.raises(ModelError, match="rope_factors_"):
        load(model.write(tmp_path / "changed.gguf"))


def test_unknown_architecture_is_refused_with_the_supported_ones(tmp_path: Path) -> None:
    model = TinyModel.read(golden("gpt2").path)
    model.keys["general.architecture"] = ("gpt3", 8, None)
    with pytest.raises(UnsupportedModelError, match=r"'gpt3'.*gpt-oss, gpt2.*CONTRIBUTING"):
        load(model.write(tmp_path / "changed.gguf"))


def test_learned_positions_bound_the_context() -> None:
    with pytest.raises(ConfigError, match=r"512.*256"):
        load(golden("gpt2").path, context_size=512)
