"""Folders whose tensors have other names, or other types, than those of tests/golden/hf."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

import engine
from engine.convert.converter import convert
from engine.convert.folder import Folder
from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from support.golden import FOLDER


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with GGUFFile.open(path) as file:
        return {t.name: (t.type.name, tuple(t.shape), bytes(file.data(t))) for t in file.tensors.values()}


def changed(tmp_path: Path, **values: Any) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "qwen2", folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def moved(
    folder: Path, source: str, rename: Callable[[str], str], **more: np.ndarray
) -> dict[str, np.ndarray]:
    """The tensors of hf/`source` under other names, and more, in `folder`."""
    shutil.copytree(FOLDER / "hf" / source, folder)
    found = {rename(name): t.read() for name, t in Folder(folder).tensors.items()} | more
    save_file(found, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("prefix", "other"),
    [("language_model.model.", "vision_tower."), ("model.language_model.", "model.vision_tower.")],
)
def test_the_text_part_of_a_model_that_sees(prefix: str, other: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pixels = np.ones((4, 4), np.float32)
    moved(folder, "gemma3", lambda name: name.replace("model.", prefix, 1), **{f"{other}weight": pixels})
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["Gemma3ForConditionalGeneration"]}
    path.write_text(json.dumps({"architectures": config["architectures"], "text_config": config}))
    convert(folder, tmp_path / "out.gguf", "f32")
    assert tensors(tmp_path / "out.gguf") == tensors(FOLDER / "gemma3.gguf")


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def microscaled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x [..., n] as released: blocks (neighbours share a byte), scales; and the numbers that these mean."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    exponent = np.ceil(np.log2(np.abs(groups).max(-1) / 6 + 1e-30)).clip(-127, 127)
    scale = np.exp2(exponent)[..., None]
    codes = np.abs(groups[..., None] / scale[..., None] - E2M1).argmin(-1).astype(np.uint8)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    return (
        blocks,
        (exponent + 127).astype(np.uint8),
        (E2M1[codes] * scale).reshape(x.shape).astype(np.float32),
    )


def test_mxfp4_blocks_of_a_release_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "gpt-oss", folder)
    made, meant = {}, {}
    for name, source in Folder(folder).tensors.items():
        x = source.read()
        if name.endswith(("gate_up_proj", "down_proj")):
            rows = np.ascontiguousarray(x.swapaxes(1, 2))
            made[f"{name}_blocks"], made[f"{name}_scales"], meant[name] = microscaled(rows)
        else:
            made[name] = x
    save_file(made, folder / "model.safetensors")
    remarks = convert(folder, tmp_path / "out.gguf", "f32")
    assert any("tensors stay mxfp4" in remark for remark in remarks)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    for layer in range(2):
        stem, blk = f"model.layers.{layer}.mlp.experts.", f"blk.{layer}.ffn_"
        np.testing.assert_array_equal(found[f"{blk}down_exps.weight"], meant[f"{stem}down_proj"])
        np.testing.assert_array_equal(found[f"{blk}gate_exps.weight"], meant[f"{stem}gate_up_proj"][:, ::2])
        np.testing.assert_array_equal(found[f"{blk}up_exps.weight"], meant[f"{stem}gate_up_proj"][:, 1::2])
    plain = tmp_path / "plain"
    moved(
        plain, "gpt-oss", str, **{name: np.ascontiguousarray(x.swapaxes(1, 2)) for name, x in meant.items()}
    )
    convert(plain, tmp_path / "plain.gguf", "f32")
    logits = []
    for path in (tmp_path / "out.gguf", tmp_path / "plain.gguf"):
        params = engine.ModelParameters(
            use_gpu=False, context_size=64, n_threads=1, kv_type="f32", repack=False
        )
        with engine.load(path, params) as model, model.start_session() as session:
            session.feed_prompt([1, 5, 9, 20])
            logits.append(session.last_logits)
    assert np.sqrt(np.square(logits[0] - logits[1]).mean() / np.square(logits[1]).mean()) < 0.05


def test_other_quantized_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = changed(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModelError, match="quantized by 'gptq'"):
        convert(folder, tmp_path / "out.gguf")
    blocks = {"a_blocks": np.ones((2, 3, 16), np.uint8), "a_scales": np.ones((3, 2), np.uint8)}
    other = tmp_path / "other"
    moved(other, "qwen2", str, **blocks)
    with pytest.raises(ModelError, match="not those of MXFP4"):
        convert(other, tmp_path / "out.gguf")
