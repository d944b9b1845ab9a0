"""A gate of which only the largest values count; the streams themselves are in the golden references."""

from __future__ import annotations

from engine.architectures.gemma3n import Gemma3n
from engine.gguf import GGUFFile
from support.builders.golden import FOLDER


def test_layers_of_a_file_have_streams_and_sparse_gates() -> None:
    with GGUFFile.open(FOLDER / "gemma3n.gguf") as gguf:
        hp = Gemma3n.hparams(gguf)
    assert (hp.n_streams, hp.n_low_rank) == (4, 4)
    assert hp.gate_cutoffs[2:] == (None,) * 4
    assert all(cutoff is not None and 0.84 < cutoff < 0.85 for cutoff in hp.gate_cutoffs[:2])
    assert hp.kv_sources == (0, 1, 2, 3, 3, 2)
    assert hp.n_head_kv == (1, 1, 1, 1, 0, 0)  # the last two cache nothing
