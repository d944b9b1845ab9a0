"""Kind `bert` against the published vectors and Hugging Face's own BERT tokenizer."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers.implementations import BertWordPieceTokenizer

from engine.errors import ModelError
from engine.tokenizer import Tokenizer, load_tokenizer
from support.builders.vocabularies import CONTROL, NORMAL, UNKNOWN, published, vectors, write
from support.quick import examples

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "un",
    "##aff",
    "##able",
    "naive",
    "Naive",
    "naïve",
    "a",
    "##a",
    "##b",
    "b",
    "c",
    "##c",
    ",",
    "!",
]
WORDS += [
    "中",
    "文",
    "##x",
    "x",
    "é",
    "e",
    "##e",
    "É",
    "İ",
    "i",
    "1",
    "##1",
    "#",
    "+",
    "=",
    "straße",
    "ß",
    "##ß",
]
PIECES = SPECIAL + WORDS


def ours(path: Path, **keys: Any) -> Tokenizer:
    spelled = [w[2:] if w.startswith("##") else "▁" + w for w in WORDS]
    types = [CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL, *[NORMAL] * len(WORDS)]
    ids = {"padding_token_id": 0, "unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3}
    return load_tokenizer(write(path, "bert", SPECIAL + spelled, types=types, **(ids | keys)))


@cache
def pair(lowercase: bool, folder: Path) -> tuple[Tokenizer, BertWordPieceTokenizer]:
    keys = {} if lowercase else {"normalizer.lowercase": False}
    path = folder / f"{lowercase}.gguf"
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    vocab = {piece: i for i, piece in enumerate(PIECES)}
    return ours(path, **named), BertWordPieceTokenizer(vocab, lowercase=lowercase)


@pytest.mark.parametrize(("text", "ids"), vectors("bert-bge"))
def test_encode_matches_published_vectors(text: str, ids: list[int]) -> None:
    assert published("bert-bge").encode(text, add_special=False) == ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wordpiece")


ALPHABET = "abcxeiéÉïİß1#+=,! \t\n中文the\u0301\u00a0\u200d\ufffd\x00\x07🦊unaffableNaive"


@pytest.mark.parametrize("lowercase", [True, False])
@examples(300)
@given(text=st.text(ALPHABET, max_size=40) | st.text(max_size=20))
@example("[MASK]")  # hypothesis draws strings of our sources, and so special tokens too
@example(" the [SEP]a")
def test_same_ids_as_hugging_face(lowercase: bool, folder: Path, text: str) -> None:
    """Special tokens are text for ours unless it is asked for them, for theirs unless it is asked not to."""
    tokenizer, theirs = pair(lowercase, folder)
    assert tokenizer.encode(text, parse_special=True) == theirs.encode(text).ids
    theirs._tokenizer.encode_special_tokens = True
    try:
        assert tokenizer.encode(text) == theirs.encode(text).ids
    finally:
        theirs._tokenizer.encode_special_tokens = False


@pytest.mark.parametrize("lowercase", [True, False])
def test_words_too_long_are_unknown(lowercase: bool, folder: Path) -> None:
    tokenizer, theirs = pair(lowercase, folder)
    for n in (99, 100, 101):
        assert tokenizer.encode("a" * n) == theirs.encode("a" * n).ids
    assert tokenizer.encode("a" * 101) == [2, 1, 3]


def test_encode_adds_the_special_tokens_that_the_file_asks_for(tmp_path: Path) -> None:
    assert ours(tmp_path / "a.gguf").encode("") == [2, 3]
    assert ours(tmp_path / "b.gguf", add_sep_token=False).encode("the") == [2, 5]
    assert ours(tmp_path / "c.gguf", add_bos_token=False).encode("the") == [5, 3]
    assert ours(tmp_path / "d.gguf").encode("the", add_special=False) == [5]
    assert ours(tmp_path / "e.gguf").encode("the [SEP]", parse_special=True) == [2, 5, 3, 3]


def test_text_round_trips_word_by_word(folder: Path) -> None:
    tokenizer, _ = pair(True, folder)
    assert tokenizer.decode(tokenizer.encode("The  unaffable\tABC !")) == "the unaffable abc !"


def test_a_vocabulary_without_an_unknown_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown token"):
        load_tokenizer(write(tmp_path / "x.gguf", "bert", ["▁a"]))


def test_a_long_text_takes_little_time(folder: Path) -> None:
    tokenizer, _ = pair(True, folder)
    assert len(tokenizer.encode("naive the " * 20_000)) == 40_002
    assert sys.getsizeof(tokenizer.encode("a" * 1_000_000)) < 1000  # one unknown word
