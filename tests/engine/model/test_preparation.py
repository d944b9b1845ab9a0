"""Limits and placement, from a file's header and parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import ConfigError, ModelError, OutOfMemoryError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.model.placement_types import DeviceInfo, number_of_slots
from engine.model.preparation import UNPACKED, Preparation, prepare, preview
from support.builders.golden import FOLDER, TinyModel, golden
from support.fakes.engine import STORIES


def prepared(name: str, **params: Any) -> Preparation:
    with GGUFFile.open(FOLDER / f"{name}.gguf") as gguf:
        return prepare(gguf, engine.ModelParameters(use_gpu=False, n_threads=1, **params))


def test_a_preview_is_the_plan_of_the_loaded_model() -> None:
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, kv_cells=96)
    plan = preview(golden("llama-gqa-tied").path, params)
    with engine.load(golden("llama-gqa-tied").path, params) as model:
        assert model.plan.layers == plan.layers
        assert (model.n_cells, plan.n_cells) == (96, 96)
        assert [u.weights for u in model.plan.usage] == [u.weights for u in plan.usage]


def test_the_largest_batch_has_a_row_for_each_sequence() -> None:
    assert prepared("llama-gqa-tied", parallel=9, max_batch_tokens=4).max_batch_tokens == 9


def test_a_text_of_an_encoder_is_one_batch_in_float32() -> None:
    preparation = prepared("bert", context_size=32, max_batch_tokens=8, kv_type="q8_0")
    assert (preparation.max_batch_tokens, preparation.params.kv_type, preparation.params.kv_cells) == (
        32,
        "f32",
        32,
    )


def test_more_positions_than_were_learned_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"positions for \d+ tokens; omit it, or set it to at most"):
        prepared("gpt2", context_size=1 << 20)


def test_encoder_context_is_limited_to_its_positions() -> None:
    n_ctx = prepared("bert").n_ctx
    preparation = prepared("bert", context_size=4096)
    assert preparation.n_ctx == n_ctx
    note = f"context: {n_ctx} tokens, for which the model has positions, not 4096"
    assert preparation.plan.notes[0] == note


def test_a_parameter_out_of_range_is_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parallel is 0"):
        preview(tmp_path / "missing.gguf", engine.ModelParameters(parallel=0))


@pytest.mark.parametrize(
    ("states", "more", "n_slots"),
    [
        (10_000, {}, 2 + 64),
        (50, {}, 2 + 5),  # a tenth of them
        (10_000, {"memory_limit": 50}, 2 + 5),
        (5, {}, 2 + 1),
        (50, {"checkpoints": 40}, 2 + 40),
    ],
)
def test_checkpoints_of_states_take_a_tenth_of_what_is_free_or_allowed(
    states: int, more: dict[str, int], n_slots: int
) -> None:
    """Sizes are in states of one sequence."""
    hp = prepared("mamba2", context_size=64).arch.hp
    if "memory_limit" in more:
        more = {"memory_limit": more["memory_limit"] * hp.state_bytes}
    params = engine.ModelParameters(parallel=2, **more)
    assert number_of_slots(hp, params, states * hp.state_bytes) == n_slots


def test_overrides_without_a_match_are_reported() -> None:
    pairs = (("ffn_up", "CPU"), ("exps", "CPU"))
    plan = preview(golden("llama-gqa-tied").path, engine.ModelParameters(tensor_overrides=pairs))
    assert [note for note in plan.notes if "override_tensor" in note] == [
        "override_tensor has no effect: 'exps' matches no tensor that can be moved"
    ]


def test_weights_that_do_not_fit_repacked_stay_in_the_mapped_file(monkeypatch: pytest.MonkeyPatch) -> None:
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, kv_cells=64)
    of = DeviceInfo.of
    with GGUFFile.open(STORIES) as gguf:
        cpu = prepare(gguf, params).plan.usage[0]
        assert cpu.weights > 100_000  # repacked
        tight = replace(of(prepare(gguf, params).cpu), free=cpu.needed - 1)
        monkeypatch.setattr(DeviceInfo, "of", lambda device: tight)
        unpacked = prepare(gguf, params)
        assert not unpacked.params.repack
        assert UNPACKED in unpacked.plan.notes
        assert unpacked.plan.usage[0].mapped > 100_000
        with pytest.raises(OutOfMemoryError, match=r"weights 3\.5 MiB"):
            prepare(gguf, replace(params, use_mmap=False))
        monkeypatch.setattr(DeviceInfo, "of", lambda device: replace(tight, free=1))
        with pytest.raises(OutOfMemoryError, match="1 B free"):
            prepare(gguf, params)


def test_a_draft_model_is_planned_and_its_memory_is_not_free_for_the_model() -> None:
    path = str(FOLDER / "llama-head-32.gguf")
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, kv_cells=96, kv_type="q4_0")
    alone, both = preview(path, params), preview(path, replace(params, draft_model=path))
    draft = both.draft
    assert draft is not None
    assert alone.draft is None
    assert (draft.n_cells, both.n_cells) == (96, 96)
    assert both.total == alone.total + draft.total
    assert draft.usage[0].kv > both.usage[0].kv  # F16
    assert both.table().split("draft model:\n")[1] == draft.table()
    limit = replace(params, draft_model=path, memory_limit=both.total)
    assert preview(path, limit).total == both.total
    with pytest.raises(OutOfMemoryError, match=r"^the limit leaves"):
        preview(path, replace(limit, memory_limit=both.total - 1))
    with pytest.raises(OutOfMemoryError, match=r"^draft model: the limit leaves"):
        preview(path, replace(limit, memory_limit=draft.total - 1))


@pytest.mark.parametrize(("model", "draft"), [("mamba", "llama-gqa-tied"), ("llama-gqa-tied", "mamba")])
def test_a_recurrent_model_neither_drafts_nor_is_drafted_for(model: str, draft: str) -> None:
    path = FOLDER / f"{model}.gguf"
    params = engine.ModelParameters(
        use_gpu=False, n_threads=1, context_size=64, draft_model=str(FOLDER / f"{draft}.gguf")
    )
    with pytest.raises(ConfigError, match=r"mamba\.gguf: states of recurrent layers cannot be rolled back"):
        preview(path, params)


def test_a_draft_model_that_makes_embeddings_is_refused() -> None:
    params = engine.ModelParameters(use_gpu=False, n_threads=1, draft_model=str(FOLDER / "bert.gguf"))
    with pytest.raises(ConfigError, match=r"bert\.gguf: a bert model makes embeddings; omit draft_model"):
        preview(FOLDER / "llama-gqa-tied.gguf", replace(params, context_size=64))


def test_draft_model_that_is_not_a_model_is_refused_with_its_kind(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    model.keys = {name: key for name, key in model.keys.items() if not name.startswith("tokenizer.")}
    model.keys["general.type"] = ("adapter", 8, None)
    draft = model.write(tmp_path / "adapter.gguf")
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, draft_model=str(draft))
    with pytest.raises(ModelError, match=r"adapter\.gguf: is of type 'adapter', not a model"):
        preview(FOLDER / "llama-gqa-tied.gguf", params)


def test_error_without_a_path_names_the_draft_model(tmp_path: Path) -> None:
    path = FOLDER / "llama-gqa-tied.gguf"
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64, draft_model=str(path))
    with pytest.raises(ConfigError, match=r"^draft model: draft_gpu_layers is -1"):
        preview(path, replace(params, draft_gpu_layers=-1))
    model = TinyModel.read(path)
    model.keys["llama.context_length"] = (1, 4, None)
    draft = model.write(tmp_path / "short.gguf")
    with pytest.raises(ConfigError, match=r"^draft model: it was trained for a context of 1; choose"):
        preview(path, replace(params, draft_model=str(draft)))
    model.keys["general.architecture"] = ("clip", 8, None)
    draft = model.write(tmp_path / "clip.gguf")
    with pytest.raises(UnsupportedModelError, match=r"^draft model: general\.architecture is 'clip'"):
        preview(path, replace(params, draft_model=str(draft)))


@pytest.mark.parametrize(
    "kv_type", ["q4_0", "f16"]
)  # a cell of the draft model takes more memory, or the same
def test_an_automatic_cache_leaves_room_for_one_of_the_draft_model(kv_type: str) -> None:
    params = engine.ModelParameters(
        use_gpu=False, n_threads=1, parallel=64, context_size=4096, kv_type=kv_type, memory_limit=64 << 20
    )
    alone, both = preview(STORIES, params), preview(STORIES, replace(params, draft_model=str(STORIES)))
    assert both.draft is not None
    assert alone.n_cells > both.n_cells >= both.draft.n_cells > 0.85 * both.n_cells
    assert both.total <= 64 << 20
