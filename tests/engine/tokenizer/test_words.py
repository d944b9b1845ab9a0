"""Encoding word by word: what is remembered, and white space."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.tokenizer.spm import SPMTokenizer
from support.builders.vocabularies import published, spm


def test_cached_words_do_not_leak_into_other_texts() -> None:
    tokenizer = published("llama-spm")
    first = tokenizer.encode("hello world hello")
    assert tokenizer.encode("hello world hello") == first
    assert tokenizer.encode("world", add_special=False) == first[2:3]


def test_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("engine.tokenizer.words._MOST_REMEMBERED", 4)
    tokenizer = spm(tmp_path / "v.gguf", {"a": 0.0, "▁": 0.0, "▁a": -1.0})
    text = " ".join("a" * n for n in range(1, 20))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert isinstance(tokenizer, SPMTokenizer)
    assert len(tokenizer._remembered) <= 4
