"""Weights of a folder as the numbers that they mean: MXFP4 blocks, and FP8 with its scales."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.utility import SafetensorsLocal
from safetensors.numpy import save_file

import engine
from engine.convert.converter import convert
from engine.convert.folder import Folder
from engine.convert.tensors import FP8Tensor, SourceTensor
from engine.errors import ModelError, UnsupportedModelError
from support.builders.golden import FOLDER
from support.builders.hf_folders import changed, moved, tensors

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
    created, expected = {}, {}
    for name, source in Folder(folder).tensors.items():
        x = source.read()
        if name.endswith(("gate_up_proj", "down_proj")):
            rows = np.ascontiguousarray(x.swapaxes(1, 2))
            created[f"{name}_blocks"], created[f"{name}_scales"], expected[name] = microscaled(rows)
        else:
            created[name] = x
    save_file(created, folder / "model.safetensors")
    remarks = convert(folder, tmp_path / "out.gguf", "f32")
    assert any("tensors stay mxfp4" in remark for remark in remarks)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    converted = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    for layer in range(2):
        stem, blk = f"model.layers.{layer}.mlp.experts.", f"blk.{layer}.ffn_"
        np.testing.assert_array_equal(converted[f"{blk}down_exps.weight"], expected[f"{stem}down_proj"])
        np.testing.assert_array_equal(
            converted[f"{blk}gate_exps.weight"], expected[f"{stem}gate_up_proj"][:, ::2]
        )
        np.testing.assert_array_equal(
            converted[f"{blk}up_exps.weight"], expected[f"{stem}gate_up_proj"][:, 1::2]
        )
    plain = tmp_path / "plain"
    moved(
        plain,
        "gpt-oss",
        str,
        **{name: np.ascontiguousarray(x.swapaxes(1, 2)) for name, x in expected.items()},
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


def e4m3(x: np.ndarray) -> np.ndarray:
    """Nearest codes of FP8 E4M3, by a table made with the standard's formula, bit by bit."""
    values = []
    for code in range(127):
        exponent, mantissa = code >> 3, code & 7
        values.append(mantissa / 8 * 2.0**-6 if not exponent else (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    table = np.array(values)
    codes = np.abs(np.abs(x)[..., None] - table).argmin(-1).astype(np.uint8)
    return codes | (np.signbit(x).astype(np.uint8) << 7)


def write_safetensors(path: Path, arrays: dict[str, tuple[str, np.ndarray]]) -> None:
    """By hand, since numpy has no FP8."""
    header, begin = {}, 0
    for name, (dtype, x) in arrays.items():
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [begin, begin + x.nbytes]}
        begin += x.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for _, x in arrays.values())
    )


def sources(path: Path, arrays: dict[str, tuple[str, np.ndarray]]) -> dict[str, SourceTensor]:
    write_safetensors(path, arrays)
    return {name: SourceTensor(name, tensor) for name, tensor in SafetensorsLocal(path).tensors.items()}


@pytest.mark.parametrize(
    ("scales", "config"),
    [
        ("block", {"quant_method": "fp8", "weight_block_size": [16, 24]}),
        ("row", {"quant_method": "compressed-tensors", "format": "float-quantized"}),
        ("tensor", {"quant_method": "fp8"}),
    ],
)
def test_convert_of_fp8_weights_multiplies_them_by_their_scales(
    scales: str, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = changed(tmp_path, quantization_config=config)
    arrays: dict[str, tuple[str, np.ndarray]] = {}
    expected = {}
    for name, source in Folder(FOLDER / "hf" / "qwen2").tensors.items():
        x = source.read()
        if not name.endswith("_proj.weight"):
            arrays[name] = ("F32", x)
            continue
        n, k = x.shape
        if scales == "block":
            scale = np.random.default_rng(1).uniform(0.5, 2, (-(-n // 16), -(-k // 24))).astype(np.float32)
            wide = scale.repeat(16, 0)[:n].repeat(24, 1)[:, :k]
            arrays[f"{name}_scale_inv"] = ("F32", scale)
        elif scales == "row":
            scale = wide = np.abs(x).max(1, keepdims=True) / 448
            arrays[f"{name}_scale"] = ("F32", scale)
        else:
            wide = np.float32(np.abs(x).max() / 448)
            arrays[f"{name}_scale"] = ("F32", np.float32(wide).reshape(()))
            arrays[f"{name.removesuffix('.weight')}.input_scale"] = ("F32", np.ones((), np.float32))
        codes = e4m3(x / wide)
        arrays[name] = ("F8_E4M3", codes)
        expected[name] = (x, wide)
    write_safetensors(folder / "model.safetensors", arrays)
    convert(folder, tmp_path / "out.gguf", "f32")
    loaded = Folder(folder).tensors
    for name, (x, wide) in expected.items():
        got = loaded[name].read()
        error = np.abs(got - x) / np.maximum(np.abs(x), 2.0**-6 * np.abs(wide))
        assert error.max() <= 1 / 16, name  # half of the last of three bits
    converted, reference = tensors(tmp_path / "out.gguf"), tensors(FOLDER / "qwen2.gguf")
    assert {name: t[:2] for name, t in converted.items()} == {name: t[:2] for name, t in reference.items()}


def test_convert_of_fp8_weights_with_foreign_scales_names_them(tmp_path: Path) -> None:
    folder = changed(tmp_path, quantization_config={"quant_method": "fp8"})
    arrays = {n: ("F32", t.read()) for n, t in Folder(FOLDER / "hf" / "qwen2").tensors.items()}
    name = "model.layers.0.mlp.up_proj.weight"
    arrays[name] = ("F8_E4M3", e4m3(arrays[name][1]))
    arrays[f"{name}_scale_inv"] = ("F32", np.ones((9, 9), np.float32))
    write_safetensors(folder / "model.safetensors", arrays)
    with pytest.raises(
        ModelError, match=r"up_proj\.weight_scale_inv of shape \[9, 9\] does not fit a weight"
    ):
        convert(folder, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((), True), ((4,), True), ((4, 1), True), ((2, 2), True), ((1, 4), False), ((3,), False)],
)
def test_check_of_fp8_scales_takes_one_each_row_or_each_block(
    shape: tuple[int, ...], fits: bool, tmp_path: Path
) -> None:
    arrays = {"w": ("F8_E4M3", np.zeros((4, 6), np.uint8)), "s": ("F32", np.ones(shape, np.float32))}
    loaded = sources(tmp_path / "x.safetensors", arrays)
    tensor = FP8Tensor(loaded["w"], loaded["s"], block=(2, 3))
    if fits:
        tensor.check()
        return
    with pytest.raises(ModelError, match="does not fit a weight of shape"):
        tensor.check()


def test_read_of_fp8_gives_each_code_its_number(tmp_path: Path) -> None:
    """E5M2 is the upper half of a half; of E4M3 the largest number is 448 and 0x7f none (OCP)."""
    codes = np.arange(256, dtype=np.uint8)
    loaded = sources(tmp_path / "x.safetensors", {"a": ("F8_E4M3", codes), "b": ("F8_E5M2", codes)})
    narrow, wide = loaded["a"].read(), loaded["b"].read()
    assert (narrow[0x7E], narrow[0xFE], narrow[0x01], narrow[0x38]) == (448, -448, 2.0**-9, 1)
    assert np.isnan(narrow[[0x7F, 0xFF]]).all()
    assert np.isfinite(np.delete(narrow, [0x7F, 0xFF])).all()
    np.testing.assert_array_equal(wide, (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32))


def test_read_of_bf16_is_the_upper_half_of_a_float(tmp_path: Path) -> None:
    halves = np.array([0x3F80, 0xC000, 0x0000], np.uint16)
    loaded = sources(tmp_path / "x.safetensors", {"a": ("BF16", halves)})
    np.testing.assert_array_equal(loaded["a"].read(), [1.0, -2.0, 0.0])


def test_check_of_a_type_that_is_not_a_float_lists_those_that_are(tmp_path: Path) -> None:
    loaded = sources(tmp_path / "x.safetensors", {"a": ("I64", np.zeros(2, np.int64))})
    with pytest.raises(UnsupportedModelError, match=r"tensor a has type I64 .*F64, F32, F16, BF16"):
        loaded["a"].check()
