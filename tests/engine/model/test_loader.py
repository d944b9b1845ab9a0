"""Which tensors a file must have, and where each of them goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import engine
from engine import architectures
from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.model.loader import Weights, checked_specs
from engine.nn.binder import TensorSpec
from support.builders.golden import TinyModel, golden


def specs_of(path: Path) -> list[TensorSpec]:
    with GGUFFile.open(path) as gguf:
        arch_type = architectures.get(gguf.arch)
        return checked_specs(arch_type(arch_type.hparams(gguf)), gguf)


def drop(model: TinyModel) -> None:
    del model.tensors["blk.0.attn_q.weight"]


def add(model: TinyModel) -> None:
    model.tensors["blk.0.attn_q.extra"] = model.tensors["blk.0.attn_norm.weight"]


def replace(model: TinyModel) -> None:
    model.tensors["blk.0.attn_q.weight"] = model.tensors["blk.0.attn_norm.weight"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (drop, ModelError, r"tensor blk\.0\.attn_q\.weight is missing"),
        (add, UnsupportedModelError, r"1 tensors are not part of architecture llama .*attn_q\.extra"),
        (replace, ModelError, r"tensor blk\.0\.attn_q\.weight has shape .* require"),
    ],
)
def test_tensors_that_do_not_fit_the_architecture_are_refused(
    change: Callable[[TinyModel], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    model = TinyModel.read(golden("llama").path)
    change(model)
    with pytest.raises(error, match=message):
        specs_of(model.write(tmp_path / "changed.gguf"))


def test_tensors_that_old_converters_added_are_ignored(tmp_path: Path) -> None:
    model = TinyModel.read(golden("llama").path)
    model.tensors["blk.0.attn_rot_embd"] = model.tensors["blk.0.attn_norm.weight"]
    assert specs_of(model.write(tmp_path / "old.gguf")) == specs_of(golden("llama").path)


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("repack", [True, False])
def test_the_layout_does_not_change_the_logits(use_mmap: bool, repack: bool) -> None:
    def logits(**params: bool) -> np.ndarray:
        loaded = engine.ModelParameters(use_gpu=False, n_threads=1, **params)  # type: ignore[arg-type]
        with engine.load(golden("llama").path, loaded) as model, model.start_session() as session:
            if not repack:
                assert set(model.weights.placement.values()) == {"CPU"}
            session.feed_prompt([5, 9, 3, 7])
            return session.last_logits

    np.testing.assert_allclose(logits(use_mmap=use_mmap, repack=repack), logits(), atol=1e-3)


def test_on_host_counts_each_tensor_once_for_each_operation() -> None:
    cpu = next(d for d in engine.devices() if d.type == "cpu")
    specs = specs_of(golden("llama-gqa-tied").path)  # a tied embedding: read as input and as output
    with GGUFFile.open(golden("llama-gqa-tied").path) as gguf:
        loads = [
            (info.name, spec.op)
            for info, spec, _ in Weights.on_host(gguf, [*specs, *specs], cpu.buffer_types(), True, False)
        ]
    assert len(set(loads)) == len(loads)
    assert {op for name, op in loads if name == "token_embd.weight"} == {"get_rows", "mul_mat"}
