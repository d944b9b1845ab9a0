"""Pre-GGUF files become the GGUF file that a Hugging Face folder of the same model becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine
from engine.convert.legacy import converter as legacy
from engine.errors import ConfigError, EngineError, ModelError, UnsupportedModelError
from engine.ggml.quantize import quantize
from engine.gguf import GGUFFile
from support.builders.golden import TinyModel, golden, wide_model
from support.builders.hf_folders import tensors
from support.builders.legacy import Old, of_golden
from support.builders.legacy_goldens import old, pieces
from support.quick import every, examples

GOLDENS = ["llama-mha-untied", "mpt-clip", "falcon-7b", "falcon-40b", "gptneox", "gptneox-sequential"]
GOLDENS += ["gptj", "gpt2-untied", "gpt2", "bloom"]


@pytest.mark.parametrize(("container", "version"), [("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 3)])
@pytest.mark.parametrize("name", every(4, GOLDENS))
def test_tensors_and_greedy_tokens_match_those_of_the_model(
    name: str, container: str, version: int, tmp_path: Path
) -> None:
    source = old(name, container=container, version=version).write(tmp_path / "old.bin")
    keys = {"context_length": "256"}
    with GGUFFile.open(golden(name).path) as file:
        arch = file.arch
        for key in ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"):
            if f"{arch}.{key}" in file.metadata:
                keys[key] = repr(file.metadata[f"{arch}.{key}"])
    legacy.convert(source, tmp_path / "new.gguf", keys=keys)
    assert tensors(tmp_path / "new.gguf") == tensors(golden(name).path)
    if (container, version) != ("ggjt", 3):
        return
    ref = golden(name)
    params = engine.ModelParameters(use_gpu=False, kv_type="f32", n_threads=1, context_size=256)
    with engine.load(tmp_path / "new.gguf", params) as model, model.start_session() as session:
        session.feed_prompt(ref.prompt)
        greedy = engine.InferenceParameters(temperature=0.0, max_tokens=24, ignore_eos=True)
        assert [token.id for token in session.infer(greedy)] == ref.greedy.tokens


def test_assumed_values_are_reported(tmp_path: Path) -> None:
    source = old("llama-mha-untied", container="ggml").write(tmp_path / "old.bin")
    remarks = " ".join(legacy.convert(source, tmp_path / "new.gguf"))
    assert "llama.context_length is 2048" in remarks
    assert "rms_epsilon is 5e-06" in remarks
    assert "no token scores" in remarks
    remarks = " ".join(
        legacy.convert(source, tmp_path / "new.gguf", keys={"context_length": "99"}, force=True)
    )
    assert "context_length" not in remarks
    with GGUFFile.open(tmp_path / "new.gguf") as file:
        assert file.metadata["llama.context_length"] == 99


def test_number_of_kv_heads_is_derived_from_the_tensors(tmp_path: Path) -> None:
    """LLaMA 2 70B: no field says it."""
    source = old("llama-gqa-tied").write(tmp_path / "old.bin")
    legacy.convert(source, tmp_path / "new.gguf")
    with GGUFFile.open(tmp_path / "new.gguf") as file:
        assert file.metadata["llama.attention.head_count_kv"] == 2


# --- quantized blocks


WIDE = wide_model(1)


def quantized(kind: str) -> dict[str, tuple[int, bytes]]:
    number = gguf.GGMLQuantizationType[kind]
    return {
        name: (int(number), bytes(quantize(kind.lower().replace("_k", "_K"), x, None)))
        for name, x in WIDE.tensors.items()
        if x.ndim == 2
    }


def wide(**more: Any) -> Old:
    return of_golden(WIDE, pieces(WIDE), **more)


@pytest.mark.parametrize(
    "kind",
    every(3, ["F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]),
)
@pytest.mark.parametrize("file_type", [2, 2002])
def test_blocks_of_version_2_are_carried_over(kind: str, file_type: int, tmp_path: Path) -> None:
    encode = quantized(kind)
    container = ("ggjt", 3) if file_type == 2 else ("ggml", 0)
    source = wide(container=container[0], version=container[1], file_type=file_type, encode=encode)
    legacy.convert(source.write(tmp_path / "old.bin"), tmp_path / "new.gguf")
    converted = tensors(tmp_path / "new.gguf")
    for name, (_, data) in encode.items():
        assert converted[name][0] == kind
        assert converted[name][2] == data
    params = engine.ModelParameters(use_gpu=False, n_threads=1, context_size=64)
    with engine.load(tmp_path / "new.gguf", params) as model, model.start_session() as session:
        session.feed_prompt([1, 5, 9])
        assert np.isfinite(session.last_logits).all()


def test_quantized_rows_are_reordered_whole(tmp_path: Path) -> None:
    model = TinyModel.read(golden("gptneox").path)
    rows = model.tensors["blk.0.attn_qkv.weight"]
    n_head = model.keys["gptneox.attention.head_count"][0]
    if rows.shape[1] % 32:
        rows = np.repeat(rows, 32, axis=1)
        rows = rows[:, : rows.shape[1] // 32 * 32]
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.quantize(rows, kind)
    from engine.convert.huggingface.names import by_parts
    from support.builders.legacy import interleaved

    np.testing.assert_array_equal(
        by_parts(gguf.quants.quantize(interleaved(rows, n_head), kind), n_head), expected
    )


@pytest.mark.parametrize(
    ("container", "version", "file_type", "kind", "says"),
    [
        ("ggml", 0, 2, "Q4_0", 0),
        ("ggjt", 1, 2, "Q4_0", 0),
        ("ggjt", 2, 2, "Q4_0", 1),
        ("ggjt", 2, 7, "Q8_0", 1),
        ("ggml", 0, 1002, "Q4_1", 1),
        ("ggjt", 1, 8, "Q5_0", 0),
        ("ggjt", 3, 3002, "Q4_0", 3),
    ],
)
def test_obsolete_blocks_are_refused_with_their_version(
    container: str, version: int, file_type: int, kind: str, says: int, tmp_path: Path
) -> None:
    source = wide(container=container, version=version, file_type=file_type, encode=quantized(kind))
    with pytest.raises(UnsupportedModelError, match=rf"{kind}.*quantization version {says}"):
        legacy.convert(source.write(tmp_path / "old.bin"), tmp_path / "new.gguf")
    assert not list(tmp_path.glob("new*"))


def test_q5_blocks_of_version_1_are_accepted(tmp_path: Path) -> None:
    encode = quantized("Q5_0")
    legacy.convert(
        wide(version=2, file_type=8, encode=encode).write(tmp_path / "old.bin"), tmp_path / "new.gguf"
    )
    converted = tensors(tmp_path / "new.gguf")
    for name, (_, data) in encode.items():
        assert converted[name][0] == "Q5_0"
        assert converted[name][2] == data


# --- what is refused


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", ModelError, "empty"),
        (b"GGUF\3\0\0\0", ModelError, "neither GGUF nor"),
        (b"lmgg", ModelError, "it fits none"),
        (b"algg\1\0\0\0", UnsupportedModelError, "LoRA"),
        (b"tjgg\4\0\0\0", UnsupportedModelError, "unknown version 4"),
        (b"fmgg\2\0\0\0", UnsupportedModelError, "unknown version 2"),
        (b"tjgg\3\0\0\0" + b"\xff" * 400, ModelError, "it fits none"),
    ],
)
def test_convert_of_another_file_is_refused(
    data: bytes, error: type[EngineError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(error, match=message):
        legacy.convert(tmp_path / "x.bin", tmp_path / "new.gguf")
    assert not list(tmp_path.glob("new*"))


def test_named_architecture_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = old("gptj").write(tmp_path / "old.bin")
    with pytest.raises(ModelError, match="as gptneox: "):
        legacy.convert(source, tmp_path / "new.gguf", architecture="gptneox")
    with pytest.raises(ConfigError, match="bloom, falcon"):
        legacy.convert(source, tmp_path / "new.gguf", architecture="qwen2")
    legacy.convert(source, tmp_path / "new.gguf", architecture="gptj")
    with pytest.raises(ConfigError, match="--force"):
        legacy.convert(source, tmp_path / "new.gguf")


DATA = {name: old(name).bytes() for name in ("llama-mha-untied", "gptneox", "gpt2")}


@examples(150)
@given(st.sampled_from(sorted(DATA)), st.data())
def test_damaged_file_is_refused_or_gives_other_numbers(
    tmp_path_factory: pytest.TempPathFactory, name: str, draw: st.DataObject
) -> None:
    data = bytearray(DATA[name])
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data) - 1))]
    else:
        at = draw.draw(st.integers(0, 3000))
        data[at : at + 4] = draw.draw(st.binary(min_size=4, max_size=4) | st.just(b"\xff\xff\xff\x7f"))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "old.bin").write_bytes(data)
    message = ""
    try:
        legacy.convert(folder / "old.bin", folder / "new.gguf")
    except EngineError as error:
        message = str(error)
    assert "\n" not in message
    assert bool(message) != (folder / "new.gguf").exists()
