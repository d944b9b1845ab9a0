"""Q, K and V in one matrix (`attn_qkv`) against the same rows in three."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.scheduler.batch import BatchItem
from support.builders.gguf import tiny_llama
from support.builders.golden import FOLDER, TinyModel

WIDTH, HEADS, KV_HEADS, HEAD_DIM = 64, 4, 2, 16


def logits(path: Path, *, fused: bool, **params: str) -> np.ndarray:
    """After a prompt in two batches, the first of them in company."""
    rng = np.random.default_rng(0)
    file = tiny_llama(n_layers=0, width=WIDTH)
    file.infos, file.blob = [], b""
    file.key("llama.block_count", 2).key("llama.feed_forward_length", WIDTH)

    def tensor(name: str, *shape: int) -> None:
        file.tensor(name, shape, data=weights(*shape).tobytes())

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape[::-1]) * 0.2).astype(np.float32)

    tensor("token_embd.weight", WIDTH, 32)
    tensor("output_norm.weight", WIDTH)
    for i in range(2):
        parts = {
            name: weights(WIDTH, heads * HEAD_DIM)
            for name, heads in (("attn_q", HEADS), ("attn_k", KV_HEADS), ("attn_v", KV_HEADS))
        }
        if fused:
            parts = {"attn_qkv": np.concatenate(list(parts.values()))}
        for name, matrix in parts.items():
            file.tensor(f"blk.{i}.{name}.weight", matrix.shape[::-1], data=matrix.tobytes())
        for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            tensor(f"blk.{i}.{name}.weight", WIDTH, WIDTH)
        for name in ("attn_norm", "ffn_norm"):
            tensor(f"blk.{i}.{name}.weight", WIDTH)
    loaded = engine.ModelParameters(
        n_threads=1, context_size=32, kv_cells=64, max_batch_tokens=8, kv_type="f32", **params
    )
    with engine.load(file.write(path), loaded) as model:
        cells = array("i", [9, 3, 4, 1, 2, 8])
        neighbours = BatchItem([8], array("i", [20]), 0, True)
        model.runner.forward([BatchItem([1, 2, 3, 4, 5], cells[:5], 0, False), neighbours])
        model.runner.forward([BatchItem([6], cells, 5, True)])
        return np.array(model.runner.logits(0))


@pytest.mark.parametrize("flash_attn", ["auto", "on", "off"])
def test_fused_projection_equals_separate_ones(tmp_path: Path, flash_attn: str) -> None:
    separate = logits(tmp_path / "m.gguf", fused=False)
    assert np.abs(separate).max() > 0.1
    fused = logits(tmp_path / "m.gguf", fused=True, flash_attn=flash_attn)
    np.testing.assert_allclose(fused, separate, atol=1e-5)


def test_fused_projection_with_reordered_heads_equals_separate_ones(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "bamba.gguf")
    for name in [name for name in model.tensors if name.endswith("attn_q.weight")]:
        parts = [model.tensors.pop(name.replace("attn_q", f"attn_{part}")) for part in "qkv"]
        model.tensors[name.replace("attn_q", "attn_qkv")] = np.concatenate(parts)
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=32)
    rows = []
    for path in (FOLDER / "bamba.gguf", model.write(tmp_path / "fused.gguf")):
        with engine.load(path, params) as loaded, loaded.start_session() as session:
            session.feed_prompt([5, 9, 3, 7])
            rows.append(session.last_logits)
    assert np.abs(rows[0] - rows[1]).max() < 1e-4
