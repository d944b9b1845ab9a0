"""Words are cut as llama.cpp cuts them, for every name of a pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.gguf import GGUFFile
from engine.tokenizer.bpe import BPETokenizer
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from engine.tokenizer.vocab import Vocabulary
from support.builders.vocabularies import published_path
from support.quick import every

# starcoder's vocabulary with words cut as the name says, rows of [text, ids]; see test_vectors.py.
VECTORS = json.loads(Path(__file__).with_name("tokenizer_vectors.json").read_text())["pre_tokenizers"]


@pytest.fixture(scope="module")
def starcoder() -> Iterator[GGUFFile]:
    with GGUFFile.open(published_path("starcoder")) as gguf:
        yield gguf


@pytest.mark.parametrize("name", every(6, VECTORS))
def test_pre_tokenizer_splits_as_in_the_published_vectors(name: str, starcoder: GGUFFile) -> None:
    tokenizer = BPETokenizer(starcoder, Vocabulary.from_gguf(starcoder), PRE_TOKENIZERS[name])
    for text, ids in VECTORS[name]:
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)


def test_vectors_cover_every_byte_level_pre_tokenizer() -> None:
    covered = {PRE_TOKENIZERS[name] for name in VECTORS}
    assert covered == {pre for pre in PRE_TOKENIZERS.values() if pre.byte_level}
