"""A gate of which only the largest values count; the streams themselves are in the golden references."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.architectures.gemma3n import Gemma3n
from engine.errors import ModelError
from engine.gguf import GGUFFile
from support.builders.golden import FOLDER, TinyModel


def test_layers_of_a_file_have_streams_and_sparse_gates() -> None:
    with GGUFFile.open(FOLDER / "gemma3n.gguf") as gguf:
        hp = Gemma3n.hparams(gguf)
    assert (hp.n_streams, hp.n_low_rank) == (4, 4)
    assert hp.gate_cutoffs[2:] == (None,) * 4
    assert all(cutoff is not None and 0.84 < cutoff < 0.85 for cutoff in hp.gate_cutoffs[:2])
    assert hp.kv_sources == (0, 1, 2, 3, 3, 2)
    assert hp.n_head_kv == (1, 1, 1, 1, 0, 0)  # the last two cache nothing


@pytest.mark.parametrize("key", ["embedding_length_per_layer_input", "altup.num_inputs"])
def test_a_file_without_streams_or_inputs_of_layers_is_refused(key: str, tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "gemma3n.gguf")
    model.set(key, 0)
    with pytest.raises(ModelError):
        engine.load(model.write(tmp_path / "none.gguf"))


def test_a_file_whose_block_of_low_rank_is_not_a_matrix_is_refused(tmp_path: Path) -> None:
    model = TinyModel.read(FOLDER / "gemma3n.gguf")
    model.tensors["blk.0.laurel_l.weight"] = model.tensors["blk.0.laurel_l.weight"].ravel()
    with pytest.raises(ModelError, match="laurel_l"):
        engine.load(model.write(tmp_path / "flat.gguf"))
