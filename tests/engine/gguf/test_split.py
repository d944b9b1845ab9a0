"""Split models: opened by any part or their directory, checked over all parts, written in parts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import engine
from engine.convert.converter import convert
from engine.errors import ConfigError, ModelError
from engine.gguf import GGUFFile, model_name
from engine.model.info import describe
from engine.quantize.quantizer import quantize_file
from support.builders.gguf import GGUFBuilder, tiny_llama
from support.builders.golden import FOLDER

WHOLE = FOLDER / "llama-gqa-tied.gguf"


def split(folder: Path, source: Path = WHOLE, n_tensors: int = 4) -> list[Path]:
    """Parts of a model, as llama-gguf-split writes them: all keys are in the first."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=n_tensors)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("model-*.gguf"))


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    with GGUFFile.open(path) as file:
        return {t.name: (t.type, tuple(t.shape), bytes(file.data(t))) for t in file.tensors.values()}


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        GGUFFile.open(path)
    return str(caught.value).partition(": ")[2]


def test_open_by_any_part_or_the_directory_opens_the_whole_model(tmp_path: Path) -> None:
    parts = split(tmp_path)
    assert len(parts) > 3
    for path in (*parts, tmp_path):
        with GGUFFile.open(path) as file:
            assert file.path == str(parts[0])
            assert file.arch == "llama"
            assert len(file.parts) == len(parts)
            assert file.nbytes == sum(part.stat().st_size for part in parts)
        assert contents(path) == contents(WHOLE)


def test_read_into_takes_bytes_from_the_tensors_part(tmp_path: Path) -> None:
    parts = split(tmp_path)
    with GGUFFile.open(parts[0]) as file:
        info = next(t for t in file.tensors.values() if t.part == 2)
        buffer = bytearray(info.nbytes - 8)
        file.read_into(info, memoryview(buffer), 8)
        assert bytes(buffer) == bytes(file.data(info))[8:]


@pytest.mark.parametrize("use_mmap", [True, False])
def test_load_of_a_split_model_gives_the_same_logits(use_mmap: bool, tmp_path: Path) -> None:
    logits = []
    for path in (WHOLE, split(tmp_path)[1]):
        params = engine.ModelParameters(use_gpu=False, n_threads=1, use_mmap=use_mmap, context_size=32)
        with engine.load(path, params) as model, model.start_session() as session:
            session.feed_prompt([1, 5, 9, 20])
            logits.append(session.last_logits)
    np.testing.assert_array_equal(*logits)


def test_open_with_a_missing_part_names_it(tmp_path: Path) -> None:
    parts = split(tmp_path)
    parts[2].unlink()
    n = len(parts)
    assert refused(parts[0]) == f"1 of the {n} parts of this split model are missing: {parts[2].name}"
    assert parts[2].name in refused(tmp_path)


def test_open_of_a_renamed_part_says_how_parts_are_named(tmp_path: Path) -> None:
    parts = split(tmp_path)
    shutil.copy(parts[0], tmp_path / "copy.gguf")
    reason = refused(tmp_path / "copy.gguf")
    assert reason.startswith(
        f"is one of {len(parts)} parts of a split model; parts must be named as in NAME-00001-of-"
    )


def test_open_with_a_part_of_another_model_names_it(tmp_path: Path) -> None:
    parts = split(tmp_path)
    (tmp_path / "other").mkdir()
    others = split(tmp_path / "other", n_tensors=7)
    shutil.copy(others[1], parts[1])
    assert refused(parts[0]) == f"is not part 2 of the same split model of {len(parts)} parts"
    shutil.copy(parts[3], parts[1])
    assert "is not part 2" in refused(parts[3])


def part(i: int, count: int, total: int, tensors: list[str]) -> GGUFBuilder:
    b = GGUFBuilder()
    for name in tensors:
        b.tensor(name, (8,), "F32")
    return b.key("split.no", i).key("split.count", count).key("split.tensors.count", total)


def test_open_with_a_tensor_in_two_parts_or_in_none_is_refused(tmp_path: Path) -> None:
    names = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    part(0, 2, 3, ["a", "b"]).write(names[0])
    part(1, 2, 3, ["b"]).write(names[1])
    assert refused(names[0]) == "tensor 'b' is in part 1 too"
    part(1, 2, 3, []).write(names[1])
    assert refused(names[0]) == "its 2 parts have 2 tensors, but split.tensors.count is 3"


@pytest.mark.parametrize("count", [10000, 2**16 - 1, 2**31])
def test_open_with_an_absurd_number_of_parts_is_refused(count: int, tmp_path: Path) -> None:
    path = tiny_llama().key("split.no", 0).key("split.count", count).write(tmp_path / "m-00001-of-00002.gguf")
    assert refused(path) == f"key 'split.count' is {count}; at most 9999 parts are supported"


def test_open_of_a_directory_needs_exactly_one_model(tmp_path: Path) -> None:
    assert refused(tmp_path) == "is a directory without .gguf files"
    shutil.copy(WHOLE, tmp_path / "a.gguf")
    shutil.copy(WHOLE, tmp_path / "mmproj-a.gguf")
    with GGUFFile.open(tmp_path) as file:
        assert file.path == str(tmp_path / "a.gguf")
    split(tmp_path)
    reason = refused(tmp_path)
    assert reason.startswith(
        "is a directory with 2 models; give the path of one of them (a.gguf, model-00001-of-"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen3-235B-Q4_K_M-00001-of-00003.gguf", "Qwen3-235B-Q4_K_M"),
        ("m-00001-of-3.gguf", "m-00001-of-3"),
        ("a.b.gguf", "a.b"),
        ("folder", "folder"),
    ],
)
def test_model_name_leaves_out_ending_and_part(name: str, expected: str) -> None:
    assert model_name(Path("x") / name) == expected


def test_info_of_a_split_model_counts_all_parts(tmp_path: Path) -> None:
    parts = split(tmp_path)
    whole, ours = describe(WHOLE), describe(parts[0])
    assert ours["parts"] == len(parts)
    assert ours["file_size"] == sum(path.stat().st_size for path in parts)
    assert (ours["n_tensors"], ours["n_params"]) == (whole["n_tensors"], whole["n_params"])


def test_quantize_reads_and_writes_parts(tmp_path: Path) -> None:
    parts = split(tmp_path)
    quantize_file(parts[0], tmp_path / "q.gguf", "Q8_0")
    quantize_file(WHOLE, tmp_path / "whole.gguf", "Q8_0")
    assert (tmp_path / "q.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    quantize_file(parts[0], tmp_path / "s.gguf", "Q8_0", split_max_size=8_000)
    written = sorted(tmp_path.glob("s-*.gguf"))
    assert len(written) > 2
    assert contents(written[0]) == contents(tmp_path / "whole.gguf")
    with pytest.raises(ConfigError, match=r"s-0000\d-of-0000\d\.gguf exists already; --force replaces it"):
        quantize_file(parts[0], tmp_path / "s.gguf", "Q8_0", split_max_size=8_000)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_convert_writes_parts(tmp_path: Path) -> None:
    convert(FOLDER / "hf" / "qwen2", tmp_path / "m.gguf", "f32", split_max_size=50_000)
    written = sorted(tmp_path.glob("m-*.gguf"))
    assert len(written) > 2
    assert contents(written[-1]) == contents(FOLDER / "qwen2.gguf")
