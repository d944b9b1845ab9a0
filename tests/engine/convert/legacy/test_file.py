"""What is read of a pre-GGUF file before anything is converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.convert.legacy.file import read
from engine.errors import ConfigError, ModelError, UnsupportedModelError
from support.builders.golden import TinyModel, golden
from support.builders.legacy import Old, of_golden

MODEL = TinyModel.read(golden("gpt2").path)
N_VOCAB = len(MODEL.keys["tokenizer.ggml.tokens"][0])


def old(container: str = "ggjt", version: int = 3, file_type: int = 0) -> Old:
    tokens = [(b"token %d" % i, float(-i)) for i in range(N_VOCAB)]
    return of_golden(MODEL, tokens, container=container, version=version, file_type=file_type)


@pytest.mark.parametrize(
    ("container", "version", "file_type", "quantization"),
    [
        ("ggml", 0, 0, 0),
        ("ggml", 0, 2000, 2),
        ("ggmf", 1, 0, 0),
        ("ggjt", 1, 0, 0),
        ("ggjt", 2, 0, 1),
        ("ggjt", 3, 0, 2),
    ],
)
def test_containers_are_distinguished(
    container: str, version: int, file_type: int, quantization: int, tmp_path: Path
) -> None:
    file = read(old(container, version, file_type).write(tmp_path / "old.bin"), None)
    assert (file.architecture, file.container, file.version) == ("gpt2", container, version)
    assert file.quantization_version == quantization
    assert len(file.tokens) == N_VOCAB
    assert (file.scores is None) == (container == "ggml")


def test_tensor_offsets_match_the_file(tmp_path: Path) -> None:
    path = old().write(tmp_path / "old.bin")
    file = read(path, "gpt2")
    assert set(file.tensors) == set(MODEL.tensors)
    data = path.read_bytes()
    for name, tensor in file.tensors.items():
        assert tensor.offset % 32 == 0
        assert tensor.shape == MODEL.tensors[name].shape[::-1]
        assert data[tensor.offset : tensor.offset + tensor.nbytes] == MODEL.tensors[name].tobytes()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    path.write_bytes(old().bytes()[:-1])
    with pytest.raises(ModelError, match="the file ends in the middle of tensor"):
        read(path, "gpt2")


def test_an_architecture_without_such_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pre-GGUF files exist for"):
        read(old().write(tmp_path / "old.bin"), "qwen2")


def test_adapter_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.bin"
    path.write_bytes(b"algg" + bytes(64))
    with pytest.raises(UnsupportedModelError, match="LoRA adapter"):
        read(path, None)
