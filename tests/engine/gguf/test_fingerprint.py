"""What identifies a model."""

from __future__ import annotations

from engine.gguf import GGUFFile
from engine.gguf.fingerprint import fingerprint
from support.builders.golden import FOLDER


def test_models_that_differ_have_other_fingerprints() -> None:
    collected = []
    for name in ("gemma2", "gemma2-scale", "gemma3", "gemma2"):
        with GGUFFile.open(FOLDER / f"{name}.gguf") as gguf:
            collected.append(fingerprint(gguf))
            assert collected[-1].startswith(f"{gguf.arch}-")
    assert collected[0] == collected[3]
    assert len(set(collected)) == 3
