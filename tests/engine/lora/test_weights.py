"""How an adapter's matrices are held, and what the memory plan says of them."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

import engine
from engine.model.preparation import preview
from support.builders.golden import FOLDER, TinyModel, error
from support.builders.lora import random_parts, write_adapter

MODEL = FOLDER / "llama.gguf"
NAMES = ("blk.0.attn_q.weight", "blk.1.ffn_up.weight", "token_embd.weight", "output.weight")


def parameters(*paths: Path, **more: object) -> engine.ModelParameters:
    adapters = tuple(engine.LoraAdapter(str(path)) for path in paths)
    values = {"use_gpu": False, "kv_type": "f32", "context_size": 64, "n_threads": 1, **more}
    return engine.ModelParameters(**values, lora_adapters=adapters)  # type: ignore[arg-type]


def logits(path: Path) -> np.ndarray:
    with engine.load(MODEL, parameters(path)) as model, model.start_session() as session:
        session.feed_prompt([1, 40, 50, 60, 70])
        return session.last_logits


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0"])
def test_every_adapter_type_gives_the_result_of_its_values_in_f32(type: str, tmp_path: Path) -> None:
    parts = random_parts(TinyModel.read(MODEL), NAMES, 32, 0)
    kind = gguf.GGMLQuantizationType[type]
    values = {
        name: tuple(gguf.dequantize(gguf.quantize(x, kind), kind) for x in both)
        for name, both in parts.items()
    }
    exact = logits(write_adapter(tmp_path / "f32.gguf", "llama", values, alpha=8.0))
    np.testing.assert_array_equal(
        logits(write_adapter(tmp_path / "x.gguf", "llama", parts, 8.0, type)), exact
    )


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    parts = random_parts(TinyModel.read(MODEL), NAMES, 4, 0)
    one = logits(write_adapter(tmp_path / "one.gguf", "llama", parts))
    assert error(one, logits(write_adapter(tmp_path / "same.gguf", "llama", parts, alpha=4.0))) < 1e-6
    assert error(one, logits(write_adapter(tmp_path / "two.gguf", "llama", parts, alpha=8.0))) > 1e-2


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("part", [0, 1])
def test_values_that_would_reach_other_rows_are_refused(value: float, part: int, tmp_path: Path) -> None:
    parts = random_parts(TinyModel.read(MODEL), NAMES, 4, 0)
    parts[NAMES[0]][part][1, 2] = value
    path = write_adapter(tmp_path / "lora.gguf", "llama", parts, alpha=1.0)
    with pytest.raises(
        engine.ModelError, match=rf"attn_q\.weight\.lora_{'ab'[part]} has values that are not"
    ):
        engine.load(MODEL, parameters(path))


def test_plan_counts_the_allocated_memory(tmp_path: Path) -> None:
    tiny = TinyModel.read(MODEL)
    paths = [
        write_adapter(tmp_path / f"{rank}.gguf", "llama", random_parts(tiny, NAMES, rank, 0), alpha=1.0)
        for rank in (3, 40)
    ]
    with engine.load(MODEL, parameters(*paths)) as model:
        held = model.describe()["lora_bytes"]
    (with_adapters,), (without,) = (
        preview(MODEL, parameters(*paths)).usage,
        preview(MODEL, parameters()).usage,
    )
    assert with_adapters.weights - without.weights == held > 0
