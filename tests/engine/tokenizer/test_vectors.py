"""Every published vocabulary of our kinds encodes and decodes the published vectors, and more of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.gguf import GGUFFile
from engine.tokenizer import Tokenizer, load_tokenizer
from support.builders.vocabularies import models_dir, published_path, vectors
from support.quick import matrix

PUBLISHED = [
    *("command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe"),
    *("llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
]
ALWAYS = ("gpt-2", "llama-spm", "qwen2", "starcoder")
# What llama.cpp makes of texts that the published vectors leave out: special tokens, rare white space, odd
# characters. Made with xllamacpp 2026.10.11549; each row is [text, add_special, parse_special, ids]. Under
# `pre_tokenizers`: starcoder's vocabulary with words cut as the name says, [text, ids]. Texts that the
# model's own tokenizer composes (NFC) and llama.cpp does not are left out.
MORE = json.loads(Path(__file__).with_name("tokenizer_vectors.json").read_text())


def test_no_published_vocabulary_is_forgotten() -> None:
    collected = {}
    for path in models_dir().glob("ggml-vocab-*.gguf.inp"):
        name = path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp")
        with GGUFFile.open(published_path(name)) as gguf:
            collected[name] = gguf.get_str("tokenizer.ggml.model")
    assert {name for name, kind in collected.items() if kind in ("llama", "gpt2", "gemma4")} == set(PUBLISHED)


NAMES = sorted({*PUBLISHED, *MORE["vocabularies"]})


@pytest.fixture(scope="module", params=matrix(NAMES, ALWAYS.__contains__))
def named(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    """One vocabulary at a time: together they take a gigabyte."""
    return request.param, load_tokenizer(published_path(request.param))


def test_encode_matches_published_vectors(named: tuple[str, Tokenizer]) -> None:
    name, tokenizer = named
    rows = vectors(name) if name in PUBLISHED else []
    assert len(rows) >= 46 or name not in PUBLISHED
    for text, ids in rows:
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)
        assert tokenizer.decode(ids) == text


def test_encode_matches_more_vectors(named: tuple[str, Tokenizer]) -> None:
    name, tokenizer = named
    for text, add_special, parse_special, ids in MORE["vocabularies"][name]:
        assert tokenizer.encode(text, add_special, parse_special) == ids, repr(text)
