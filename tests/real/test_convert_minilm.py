"""all-MiniLM-L6-v2 as published: its folder converts unchanged, its vectors are those of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import engine
from engine.convert.converter import convert

SENTENCES = [
    "That is a happy person",
    "Das ist ein glücklicher Mensch, naïve café №5.",
    "The quarterly report is due on 2026-11-30; please send it to accounts@example.com.",
]
# SentenceTransformer(folder).encode(SENTENCES): sentence-transformers 5, torch 2.13.0, on a CPU.
REFERENCE = np.load(Path(__file__).with_name("minilm_sentences.npy"))


@pytest.mark.parametrize(("type", "tolerance"), [("f32", 1e-5), ("f16", 2e-3)])
def test_vectors_of_the_converted_folder_match_sentence_transformers(
    type: str, tolerance: float, minilm: Path, tmp_path: Path
) -> None:
    path = tmp_path / "minilm.gguf"
    assert convert(minilm, path, type) == []  # position_ids, an I64 buffer, is left out
    with engine.load(path, engine.ModelParameters(n_threads=1)) as model:
        vectors = [model.embed(model.tokenizer.encode(text, add_special=True)) for text in SENTENCES]
    np.testing.assert_allclose(vectors, REFERENCE, atol=tolerance)


def test_a_folder_without_a_normalize_module_keeps_the_length_of_its_vectors(
    minilm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in minilm.iterdir():
        if file.name != "modules.json":
            (folder / file.name).symlink_to(file)
    modules = (minilm / "modules.json").read_text()
    (folder / "modules.json").write_text(
        modules[: modules.index('"2"')].rsplit(",", 2)[0].rstrip(" {\n\t") + "]"
    )
    path = tmp_path / "raw.gguf"
    convert(folder, path, "f32")
    with engine.load(path, engine.ModelParameters(n_threads=1)) as model:
        assert not model.hp.normalize
        vector = model.embed(model.tokenizer.encode(SENTENCES[0], add_special=True))
    assert not 0.9 < np.linalg.norm(vector) < 1.1
    np.testing.assert_allclose(vector / np.linalg.norm(vector), REFERENCE[0], atol=1e-5)
