"""Folders whose tensors have other names, or other types, than those of tests/golden/hf."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.convert.converter import convert
from engine.convert.folder import Folder
from engine.errors import ModelError, UnsupportedModelError
from support.builders.golden import FOLDER
from support.builders.hf_folders import changed, moved, tensors


@pytest.mark.parametrize(
    ("prefix", "other"),
    [("language_model.model.", "vision_tower."), ("model.language_model.", "model.vision_tower.")],
)
def test_text_part_of_a_vision_model_is_converted(prefix: str, other: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pixels = np.ones((4, 4), np.float32)
    moved(folder, "gemma3", lambda name: name.replace("model.", prefix, 1), **{f"{other}weight": pixels})
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["Gemma3ForConditionalGeneration"]}
    path.write_text(json.dumps({"architectures": config["architectures"], "text_config": config}))
    convert(folder, tmp_path / "out.gguf", "f32")
    assert tensors(tmp_path / "out.gguf") == tensors(FOLDER / "gemma3.gguf")


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
    converted, remarks = gguf_of(tmp_path / "a", tmp_path / "a.gguf")
    assert converted == tensors(FOLDER / "qwen2.gguf")
    assert remarks == [
        "2 integer tensors are not weights and were omitted: model.flags, model.num_batches_tracked"
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


def test_convert_with_an_index_of_missing_tensors_is_refused(tmp_path: Path) -> None:
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
