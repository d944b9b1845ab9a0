"""Kind `t5` against the tokenizer that Hugging Face makes of the same vocabulary."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models, normalizers, pre_tokenizers

from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.tokenizer import Tokenizer, load_tokenizer
from support.builders.vocabularies import CONTROL, NORMAL, UNKNOWN, UNUSED, published, published_path, write
from support.quick import every, examples

PUBLISHED = "nomic-bert-moe"  # XLM-RoBERTa's


@cache
def charsmap() -> bytes:
    with GGUFFile.open(published_path(PUBLISHED)) as gguf:
        return bytes(gguf.get_ints("tokenizer.ggml.precompiled_charsmap"))


@cache
def reference() -> Any:
    """As in the tokenizer.json of XLM-RoBERTa."""
    ours = published(PUBLISHED).vocabulary
    # Special tokens are not among what text is read as, by either.
    pieces = [f"\ufdd0{i}" if ours.is_special(i) else piece for i, piece in enumerate(ours.pieces)]
    actual = Reference(models.Unigram(list(zip(pieces, ours.scores, strict=True)), unk_id=3))
    actual.normalizer = normalizers.Precompiled(charsmap())
    actual.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return actual


TEXTS = [
    "Hello world!",
    "  spaces \t and\n\nlines  ",
    "ﬁ ① ½ ㎏ \uff21 ｶﾞ",
    "日本語のテキスト 한국어 русский العربية",
    "😀😀 \u200b \u00a0 e\u0301",
    "<s> </s> <mask>",
    "x" * 300,
    "",
]


@pytest.mark.parametrize("text", every(4, TEXTS))
def test_encode_of_a_published_vocabulary_matches_tokenizers(text: str) -> None:
    assert published(PUBLISHED).encode(text, add_special=False) == reference().encode(text).ids


@examples(300)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_encode_of_any_text_matches_tokenizers(text: str) -> None:
    # Left out: what is no character, and white space that the map leaves: there Hugging Face cuts, while
    # SentencePiece, and llama.cpp, do not.
    left = normalizers.Precompiled(charsmap()).normalize_str(text).replace(" ", "")
    if not any(c.isspace() or 0xFDD0 <= ord(c) < 0xFDF0 for c in left):
        assert published(PUBLISHED).encode(text, add_special=False) == reference().encode(text).ids


def test_encode_adds_the_special_tokens_of_the_file() -> None:
    ours = published(PUBLISHED)
    assert ours.encode("") == [0, 2]
    assert ours.encode("a b")[0] == 0
    ids, start = ours.encode_pair("a", "b")
    a, b = ours.encode("a", add_special=False), ours.encode("b", add_special=False)
    assert ids == [0, *a, 2, 2, *b, 2]
    assert start == len(a) + 3


def test_texts_round_trip() -> None:
    ours = published(PUBLISHED)
    for text in ("Hello world!", "日本語", "a, b"):
        assert ours.decode(ours.encode(text)) == text
    assert ours.token_bytes(3) == b""


PIECES = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0, "▁a": -1.0, "a": -3.0, "ab": -1.5, "b": -3.0}


def small(path: Path, pieces: dict[str, float] = PIECES, **keys: Any) -> Tokenizer:
    types = [CONTROL, CONTROL, UNKNOWN, *[NORMAL] * (len(pieces) - 3)]
    keys = {"types": types, "scores": list(pieces.values()), "remove_extra_whitespaces": True} | keys
    return load_tokenizer(write(path / "model.gguf", "t5", list(pieces), **keys))


def test_encode_chooses_the_most_likely_pieces(tmp_path: Path) -> None:
    ours = small(tmp_path)
    assert ours.encode("aab") == [4, 6, 1]  # ▁a ab </s>
    assert ours.encode("ab", add_special=False) == [3, 6]  # rather than ▁a b
    assert ours.encode("a zzz b", add_special=False) == [4, 3, 2, 3, 7]  # what is unknown is one token
    assert ours.encode("  a  ", add_special=False) == [4]
    assert ours.encode("</s>", add_special=False) == [3, 2]
    assert ours.encode("</s>", add_special=False, parse_special=True) == [1]


def test_pieces_that_span_spaces_are_used(tmp_path: Path) -> None:
    ours = small(tmp_path, PIECES | {"a▁b": -0.5})
    assert ours.encode("a b", add_special=False) == [3, 8]


def test_control_tokens_are_not_read_from_text(tmp_path: Path) -> None:
    types = [CONTROL, CONTROL, UNKNOWN, *[NORMAL] * 4, CONTROL]
    ours = small(tmp_path, types=types)
    assert ours.encode("b", add_special=False) == [3, 2]
    types[-1] = UNUSED
    assert small(tmp_path, types=types).encode("b", add_special=False) == [3, 7]


def test_options_of_the_file_are_applied(tmp_path: Path) -> None:
    assert small(tmp_path, add_space_prefix=False).encode("ab") == [6, 1]
    spaced = small(tmp_path, remove_extra_whitespaces=False).encode("a  ", add_special=False)
    assert spaced == [4, 3, 3]
    assert small(tmp_path, add_eos_token=False, add_bos_token=True, bos_token_id=0).encode("ab") == [0, 3, 6]


def test_invalid_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="scores"):
        load_tokenizer(
            write(tmp_path / "a.gguf", "t5", list(PIECES), types=[CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 5)
        )
    with pytest.raises(UnsupportedModelError, match="t5"):
        load_tokenizer(write(tmp_path / "b.gguf", "rwkv", list(PIECES)))


def try_map(path: Path, data: bytes, text: str) -> None:
    """A damaged map is refused, when it is read or when it is used; or it does no harm."""
    try:
        small(path, precompiled_charsmap=list(data)).encode(text)
    except ModelError as error:
        refused: Exception | None = error
    else:
        refused = None
    assert refused is None or "charsmap" in str(refused) or "map of characters" in str(refused)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 100, 5000, 200_000])
def test_truncated_character_map_is_refused(n: int, tmp_path: Path) -> None:
    try_map(tmp_path, charsmap()[:n], "".join(map(chr, range(32, 3000))))


@examples(25)
@given(st.integers(0, 2**18), st.integers(0, 255), st.text(max_size=20))
def test_damaged_character_map_is_refused_or_used_safely(
    tmp_path_factory: Any, place: int, value: int, text: str
) -> None:
    data = bytearray(charsmap())
    data[place % len(data)] = value
    try_map(tmp_path_factory.mktemp("map"), bytes(data), text)
