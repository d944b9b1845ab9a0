"""Files of every type are, byte for byte, those of llama-quantize (llama.cpp of the pinned package).

quantize_digests.json: sha256 over name, type and data of all tensors that it wrote; stories-imatrix.gguf:
what llama-imatrix measured on the bundled model with the text of a licence.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError, EngineError, ModelError
from engine.gguf import GGUFFile
from engine.quantize.mixes import MIXES
from engine.quantize.quantizer import quantize_file, type_names
from support.builders.golden import FOLDER, TinyModel, golden
from support.quick import matrix

HERE = Path(__file__).parent
STORIES = HERE.parents[2] / "models" / "stories.gguf"
IMATRIX = HERE / "stories-imatrix.gguf"
DIGESTS: dict[str, dict[str, str]] = json.loads((HERE / "quantize_digests.json").read_text())
CASES = [(name, mix) for name, digests in DIGESTS.items() for mix in digests]
# One mix of each family; of those whose tables ggml computes first, the one that takes a second and not five.
QUICK = {
    "stories": ("Q8_0",),
    "stories+imatrix": ("Q4_K_M", "IQ4_XS"),
    "falcon-7b": ("Q5_K_S",),
    "mixtral": ("TQ1_0", "MXFP4_MOE"),
}


def digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with GGUFFile.open(path) as file:
        for name in sorted(file.tensors):
            t = file.tensors[name]
            hasher.update(name.encode() + t.type.name.encode() + bytes(file.data(t)))
    return hasher.hexdigest()[:16]


@pytest.mark.parametrize(("name", "mix"), matrix(CASES, lambda case: case[1] in QUICK[case[0]]))
def test_the_bytes_match_those_of_llama_quantize(name: str, mix: str, tmp_path: Path) -> None:
    model, _, importance = name.partition("+")
    source = STORIES if model == "stories" else golden(model).path
    out = tmp_path / "out.gguf"
    quantize_file(source, out, mix, requantize=True, imatrix=IMATRIX if importance else None, threads=2)
    assert digest(out) == DIGESTS[name][mix]


def test_every_type_has_a_comparison() -> None:
    assert {mix for _, mix in CASES} == set(MIXES)


def test_keys_of_the_source_are_copied(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    quantize_file(golden("mixtral").path, out, "Q8_0")
    with GGUFFile.open(golden("mixtral").path) as before, GGUFFile.open(out) as after:
        own = {"general.file_type": 7, "general.quantization_version": 2}
        expected = {k: before.metadata[k] for k in before.metadata} | own
        assert {k: after.metadata[k] for k in after.metadata} == expected


def test_keep_output_and_embedding_type_are_respected(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    changes = quantize_file(
        golden("qwen2").path, out, "q4_0", keep_output=True, embedding_type="q8_0", threads=1
    )
    types = {c.name: c.after for c in changes}
    assert types["output.weight"] == "f32"
    assert types["token_embd.weight"] == "q8_0"
    assert types["blk.0.attn_q.weight"] == "q4_0"
    assert sum(c.bytes_after for c in changes) < sum(c.bytes_before for c in changes)


def test_pure_uses_one_type_for_all_matrices(tmp_path: Path) -> None:
    changes = quantize_file(golden("qwen2").path, tmp_path / "out.gguf", "Q4_0", pure=True)
    assert {c.after for c in changes if c.name.endswith("weight") and len(c.shape) > 1} == {"q4_0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type": "Q9"}, "unknown type Q9.*Q4_K_M"),
        ({"type": "IQ2_XS"}, "imatrix file"),
        ({"type": "Q2_K_S"}, "quantized already"),
        ({"type": "Q4_0"}, "quantized already"),
        ({"type": "IQ3_XXS", "requantize": True}, "imatrix file"),
        ({"type": "Q8_0", "output_type": "q9"}, "tensor type q9"),
        ({"type": "Q4_0", "requantize": True, "imatrix": STORIES}, "not an imatrix file"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"requantize": arguments["type"] == "IQ2_XS"} | arguments
    with pytest.raises(ConfigError, match=message):
        quantize_file(STORIES, tmp_path / "out.gguf", **arguments)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        quantize_file(golden("qwen2").path, out, "Q8_0")
    assert out.read_text() == "mine"
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(golden("qwen2").path.read_bytes())
    with pytest.raises(ConfigError, match="source itself"):
        quantize_file(copy, copy, "Q8_0", force=True)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "llama-gqa-tied.gguf")
    model.tensors["blk.0.ffn_down.weight"][3, 4] = np.nan
    source = model.write(tmp_path / "in.gguf")
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_down\.weight.*finite"):
        quantize_file(source, tmp_path / "out.gguf", "Q8_0")
    assert not list(tmp_path.glob("out*"))


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    source.write_bytes(golden("qwen2").path.read_bytes()[:-64])
    with pytest.raises(EngineError):
        quantize_file(source, tmp_path / "out.gguf", "Q8_0")


def test_every_llama_quantize_name_is_supported() -> None:
    assert set(MIXES) < set(type_names())
    assert "Q4_K" in type_names()
