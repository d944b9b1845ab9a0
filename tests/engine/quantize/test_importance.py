"""Importance matrices, in GGUF and in the older format of llama-imatrix."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, ModelError
from engine.gguf import GGUFFile
from engine.quantize.importance import read_importance
from engine.quantize.quantizer import quantize_file
from support.builders.golden import wide_model

IMATRIX = Path(__file__).parent / "stories-imatrix.gguf"


def dat(path: Path, entries: dict[str, np.ndarray], calls: int = 7) -> Path:
    """The format of llama-imatrix before GGUF: means times calls."""
    out = struct.pack("<i", len(entries))
    for name, means in entries.items():
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<2i", calls, means.size)
        out += (means * calls).astype("<f4").tobytes()
    path.write_bytes(out)
    return path


def test_old_imatrix_file_is_read(tmp_path: Path) -> None:
    current = read_importance(IMATRIX)
    old = read_importance(dat(tmp_path / "old.dat", current))
    assert old.keys() == current.keys()
    for name, means in current.items():
        np.testing.assert_allclose(old[name].reshape(means.shape), means, rtol=1e-6)


def test_old_imatrix_file_concatenates_the_experts(tmp_path: Path) -> None:
    source = wide_model(2, n_expert=4).write(tmp_path / "in.gguf")
    rng = np.random.default_rng(0)
    means = {"blk.0.ffn_up_exps.weight": rng.uniform(0.1, 9, (4, 256)).astype(np.float32)}
    quantize_file(source, tmp_path / "old.gguf", "Q4_0", imatrix=dat(tmp_path / "old.dat", means))
    shuffled = {name: x[::-1] for name, x in means.items()}
    quantize_file(source, tmp_path / "other.gguf", "Q4_0", imatrix=dat(tmp_path / "other.dat", shuffled))
    with GGUFFile.open(tmp_path / "old.gguf") as a, GGUFFile.open(tmp_path / "other.gguf") as b:
        name = "blk.0.ffn_up_exps.weight"
        assert bytes(a.data(a.tensors[name])) != bytes(b.data(b.tensors[name]))
    short = dat(tmp_path / "short.dat", {"blk.0.ffn_up_exps.weight": np.ones((3, 256), np.float32)})
    with pytest.raises(ConfigError, match="768 importances"):
        quantize_file(source, tmp_path / "new.gguf", "Q4_0", imatrix=short)


@pytest.mark.parametrize(
    "data", [b"", b"\1\0\0\0", b"\xff\xff\xff\x7f" * 9, b"\1\0\0\0\3\0\0\0abc\1\0\0\0\1\0\0\0\0\0\xc0\x7f"]
)
def test_damaged_old_imatrix_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(data)
    with pytest.raises(ConfigError, match=r"imatrix|finite"):
        read_importance(tmp_path / "x.dat")
    with pytest.raises(ModelError, match="cannot be read"):
        read_importance(tmp_path / "absent")
