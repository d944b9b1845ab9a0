"""What identifies a model."""

from __future__ import annotations

from engine.gguf import GGUFFile
from engine.gguf.fingerprint import fingerprint
from support.builders.golden import FOLDER


def test_models_that_differ_have_other_fingerprints() -> None:
    found = []
    for name in ("gemma2", "gemma2-scale", "gemma3", "gemma2"):
        with GGUFFile.open(FOLDER / f"{name}.gguf") as gguf:
            found.append(fingerprint(gguf))
            assert found[-1].startswith(f"{gguf.arch}-")
    assert found[0] == found[3]
    assert len(set(found)) == 3
