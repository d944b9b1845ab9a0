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
from support.builders.golden import FOLDER


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


def gguf_of(folder: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """What a folder becomes as f32, and the remarks."""
    remarks = convert(folder, out, "f32")
    return tensors(out), remarks


@pytest.mark.parametrize(
    ("source", "buffer", "dtype"),
    [
        ("qwen2", "model.layers.0.self_attn.rotary_emb.inv_freq", np.float32),
        ("qwen2", "model.rotary_emb.original_inv_freq", np.float16),
        ("gpt2", "transformer.h.0.attn.bias", np.uint8),
        ("gpt2", "transformer.h.1.attn.masked_bias", np.float32),
        ("gptneox", "gpt_neox.layers.0.attention.bias", np.bool_),
        ("gptneox", "gpt_neox.layers.0.attention.masked_bias", np.bool_),
        ("bert", "embeddings.position_ids", np.int64),
        ("bert", "embeddings.token_type_ids", np.int32),
    ],
)
def test_convert_leaves_known_buffers_out_whatever_their_type(
    source: str, buffer: str, dtype: Any, tmp_path: Path
) -> None:
    moved(tmp_path / "model", source, str, **{buffer: np.ones((1, 1, 4, 4), dtype)})
    assert gguf_of(tmp_path / "model", tmp_path / "out.gguf") == (tensors(FOLDER / f"{source}.gguf"), [])


def test_convert_names_unknown_integers_and_refuses_unknown_weights(tmp_path: Path) -> None:
    counts = {"model.num_batches_tracked": np.ones(1, np.int64), "model.flags": np.ones(3, np.bool_)}
    moved(tmp_path / "a", "qwen2", str, **counts)
    made, remarks = gguf_of(tmp_path / "a", tmp_path / "a.gguf")
    assert made == tensors(FOLDER / "qwen2.gguf")
    assert remarks == [
        "2 integer tensors are no weights, and left out: model.flags, model.num_batches_tracked"
    ]
    moved(tmp_path / "b", "qwen2", str, **{"model.layers.0.adapter.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(
        UnsupportedModelError, match=r"1 tensors are not part of Qwen2ForCausalLM \(model\.layers"
    ):
        convert(tmp_path / "b", tmp_path / "b.gguf")


def test_convert_of_an_integer_weight_names_its_type(tmp_path: Path) -> None:
    moved(tmp_path / "a", "qwen2", str, **{"model.norm.weight": np.ones(64, np.int64)})
    with pytest.raises(UnsupportedModelError, match=r"tensor model\.norm\.weight has type I64"):
        convert(tmp_path / "a", tmp_path / "a.gguf")


def test_convert_of_a_tied_head_that_is_stored_too_leaves_it_out(tmp_path: Path) -> None:
    embedding = Folder(FOLDER / "hf" / "gemma").tensors["model.embed_tokens.weight"].read()
    moved(tmp_path / "model", "gemma", str, **{"lm_head.weight": embedding})
    assert gguf_of(tmp_path / "model", tmp_path / "out.gguf") == (tensors(FOLDER / "gemma.gguf"), [])


@pytest.mark.parametrize(
    ("source", "rename"),
    [
        ("qwen2", lambda name: name.removeprefix("model.")),
        ("qwen2", lambda name: f"module.{name}"),
        ("gpt2", lambda name: name.removeprefix("transformer.")),
        ("bloom", lambda name: f"_orig_mod.{name}"),
        ("bert", lambda name: f"bert.{name}"),
    ],
    ids=["qwen2", "qwen2-parallel", "gpt2", "bloom-compiled", "bert"],
)
def test_convert_reads_names_with_and_without_the_models_prefix(
    source: str, rename: Callable[[str], str], tmp_path: Path
) -> None:
    names = Folder(FOLDER / "hf" / source).tensors
    assert {rename(name) for name in names} != set(names)
    moved(tmp_path / "model", source, rename)
    assert gguf_of(tmp_path / "model", tmp_path / "out.gguf") == (tensors(FOLDER / f"{source}.gguf"), [])


def test_convert_with_an_index_of_tensors_that_are_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "gemma", folder)
    names = [
        *Folder(folder).tensors,
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision.x",
    ]
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    assert gguf_of(folder, tmp_path / "out.gguf") == (tensors(FOLDER / "gemma.gguf"), [])
    index.write_text(
        json.dumps(
            {"weight_map": dict.fromkeys([*names, "model.layers.7.mlp.up_proj.weight"], "model.safetensors")}
        )
    )
    with pytest.raises(ModelError, match=r"tensor model\.layers\.7\.mlp\.up_proj\.weight is in the index"):
        convert(folder, tmp_path / "b.gguf")


def test_convert_without_an_index_takes_model_safetensors_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / "hf" / "qwen2", folder)
    save_file({"tok_embeddings.weight": np.ones((2, 2), np.float32)}, folder / "consolidated.safetensors")
    assert gguf_of(folder, tmp_path / "out.gguf") == (tensors(FOLDER / "qwen2.gguf"), [])


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
    meant = {}
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
        meant[name] = (x, wide)
    write_safetensors(folder / "model.safetensors", arrays)
    convert(folder, tmp_path / "out.gguf", "f32")
    loaded = Folder(folder).tensors
    for name, (x, wide) in meant.items():
        got = loaded[name].read()
        error = np.abs(got - x) / np.maximum(np.abs(x), 2.0**-6 * np.abs(wide))
        assert error.max() <= 1 / 16, name  # half of the last of three bits
    made, reference = tensors(tmp_path / "out.gguf"), tensors(FOLDER / "qwen2.gguf")
    assert {name: t[:2] for name, t in made.items()} == {name: t[:2] for name, t in reference.items()}


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
