"""A loaded model as plain data."""

from __future__ import annotations

import json
from pathlib import Path

import engine
from engine.model.description import describe
from support.builders.gguf import tiny_llama


def test_description_of_a_loaded_model_has_sizes_and_placement(tmp_path: Path) -> None:
    path = tiny_llama().write(tmp_path / "tiny.gguf")
    params = engine.ModelParameters(
        use_gpu=False,
        n_threads=1,
        kv_cells=48,
        context_size=32,
        parallel=3,
        max_batch_tokens=16,
        kv_type="f32",
    )
    with engine.load(path, params) as model:
        described = describe(model)
        assert describe(model) == model.describe()
    assert json.loads(json.dumps(described)) == described  # nothing but plain data
    n_params = 32 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert (described["n_params"], described["size_bytes"]) == (n_params, 4 * n_params)
    assert (described["path"], described["architecture"]) == (str(path), "llama")
    assert (described["n_ctx"], described["n_ctx_train"], described["kv_cells"]) == (32, 64, 48)
    assert described["kv_bytes"] == 48 * 2 * 2 * 16 * 4  # cells, layers, K and V, two heads of 8, F32
    assert described["window_rows"] == 0  # no layer has a window
    assert (described["placement"], described["attention"]) == (["CPU"] * 3, ["paged"] * 2)
    assert (described["generates"], described["gpu_layers"]) == (True, 0)
    assert list(described["compute_bytes"]) == ["CPU"]
