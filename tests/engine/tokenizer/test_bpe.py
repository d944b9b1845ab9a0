"""Byte-level BPE: how words are cut, merged and spelled, and that long input stays cheap."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError, UnsupportedModelError
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.bpe import BYTE_ALPHABET, splitter
from engine.tokenizer.pretokenizers import PRE_TOKENIZERS
from support.builders.vocabularies import BYTE, BYTES, CONTROL, NORMAL, USER_DEFINED, published, write
from support.quick import every, examples

UNTIMED = examples(100)

# Every byte has a token here, and nothing is composed: what goes in comes out.
ROUND_TRIP = ("gpt-2", "deepseek-llm", "qwen35")


def bpe(path: Path, pieces: list[str], merges: list[str], **keys: object) -> Tokenizer:
    """All bytes, then the pieces given, then `<|end|>`."""
    tokens = [*BYTES, *pieces, "<|end|>"]
    types = [NORMAL] * (len(tokens) - 1) + [CONTROL]
    keys = {"types": types, "merges": merges, "pre": "gpt-2", "eos_token_id": len(tokens) - 1} | keys
    return load_tokenizer(write(path, "gpt2", tokens, **keys))


def spelled(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.token_text(i) for i in tokenizer.encode(text, **options)]


def cut(name: str, text: str) -> list[str]:
    """The words of a text, spelled as text."""
    pre = PRE_TOKENIZERS[name]
    words = [word for word, _ in splitter(pre).pre_tokenize_str(text)]
    return [bytes(BYTE_ALPHABET[c] for c in word).decode() for word in words] if pre.byte_level else words


@pytest.mark.parametrize("name", every(3, ROUND_TRIP))
def test_any_text_round_trips(name: str) -> None:
    tokenizer = published(name)

    @UNTIMED
    @given(st.text(max_size=80))
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text

    check()


def test_text_round_trips_composed_if_the_model_composes() -> None:
    tokenizer = published("qwen2")

    @UNTIMED
    @given(st.text(max_size=60))
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)

    check()
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")
    assert tokenizer.decode(tokenizer.encode("e" + "\u0301" * 99)) == "é" + "\u0301" * 98


# The cuts that llama.cpp approximates, and those of the patterns whose models have no published vocabulary.
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gpt-4o", "camelCase HTMLParser's x", ["camel", "Case", " HTMLParser's", " x"]),
        ("gpt-4o", "ÉtéÀ été123456", ["Été", "À", " été", "123", "456"]),
        ("gpt-4o", "a/b\n/c //\n", ["a", "/b", "\n", "/c", " //\n"]),
        ("tekken", "aB1234 it's", ["a", "B", "1", "2", "3", "4", " it", "'s"]),
        ("kimi-k2", "漢字abc漢Ab", ["漢字", "abc", "漢", "Ab"]),
        ("tiny_aya", "1234567 nextLine", ["1", "234", "567", " next", "Line"]),
        ("youtu", "nextLine 가나漢字12", ["next", "Line", " ", "가나", "漢字", "1", "2"]),
        ("superbpe", "by the way 12345.", ["by the way ", "12", "345", "."]),
        ("afmoe", "x  1234567", ["x", "  ", "1", "234", "567"]),
        ("llama-bpe", "I'LL 12345  x\n\n y", ["I", "'LL", " ", "123", "45", " ", " x", "\n\n", " y"]),
        ("qwen2", "12 ab", ["1", "2", " ab"]),
        ("bailingmoe", "a  \n\nb", ["a", "  \n\n", "b"]),
        ("deepseek-v3", "a1234漢字!b", ["a", "123", "4", "漢字", "!b"]),
        ("viking", "abc, 12", ["abc", ",", " ", "1", "2"]),
        ("chameleon", "a    b IMGIMGABZ", ["a", "    ", "b", " ", "IMGIMGABZ"]),
        ("sarvam-moe", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("jais-2", "a" + " " * 9 + "b", ["a", " " * 8, " b"]),
    ],
)
def test_splitter_gives_the_words_of_a_text(name: str, text: str, words: list[str]) -> None:
    assert cut(name, text) == words


def test_splitter_loses_no_text() -> None:
    names = {PRE_TOKENIZERS[name].patterns: name for name in PRE_TOKENIZERS}.values()

    @UNTIMED
    @given(
        st.text(max_size=40) | st.text(st.sampled_from("aA1 '.\n\u3000é漢!<"), max_size=40),
        st.sampled_from([*names]),
    )
    def check(text: str, name: str) -> None:
        assert "".join(cut(name, text)) == text

    check()


def test_merges_in_order_of_rank(tmp_path: Path) -> None:
    tokenizer = bpe(tmp_path / "v.gguf", ["ab", "bc", "abc"], ["b c", "a b", "a bc"])
    assert spelled(tokenizer, "abc ab") == ["abc", "Ġ", "ab"]
    assert tokenizer.decode(tokenizer.encode("abc é")) == "abc é"


@pytest.mark.parametrize(("pre", "pieces"), [("gpt-2", ["ab", "c"]), ("llama-bpe", ["abc"])])
def test_a_word_that_is_a_token_may_not_need_merges(tmp_path: Path, pre: str, pieces: list[str]) -> None:
    tokenizer = bpe(tmp_path / "v.gguf", ["ab", "abc"], ["a b"], pre=pre)
    assert spelled(tokenizer, "abc", add_special=False) == pieces


@pytest.mark.parametrize(
    ("merges", "pieces"),
    [
        (["a b", "b c", "a b"], ["ab", "c"]),  # the first of two counts
        (["b c", "a b", "a b"], ["a", "bc"]),
        (["a x", "a b"], ["ab", "c"]),  # no such result
        (["a nope", "nope c", "a b"], ["ab", "c"]),
        (["ab", "", " ", "a b"], ["ab", "c"]),  # no merges at all
        (["< |end|>", "a b"], ["ab", "c"]),  # never a control token
        ([], ["a", "b", "c"]),
    ],
)
def test_invalid_merges_are_ignored_with_a_warning(
    tmp_path: Path, merges: list[str], pieces: list[str]
) -> None:
    tokenizer = bpe(tmp_path / "v.gguf", ["ab", "bc", "|end|>"], merges)
    assert spelled(tokenizer, "abc") == pieces


def test_merges_never_reach_control_tokens(tmp_path: Path) -> None:
    tokens = [*BYTES, "ab"]
    path = write(
        tmp_path / "v.gguf", "gpt2", tokens, types=[NORMAL] * 256 + [CONTROL], merges=["a b"], pre="llama-bpe"
    )
    assert spelled(load_tokenizer(path), "ab") == ["a", "b"]


def test_control_tokens_are_reached_by_parsing_only(tmp_path: Path) -> None:
    tokenizer = bpe(tmp_path / "v.gguf", [], [])
    assert tokenizer.eos_id not in tokenizer.encode("a<|end|>")
    assert tokenizer.encode("a<|end|>", parse_special=True) == [ord("a"), tokenizer.eos_id]


def test_unknown_pre_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'nope' is not supported; supported are .*gpt-2"):
        bpe(tmp_path / "v.gguf", [], [], pre="nope")


@pytest.mark.parametrize("keys", [{}, {"pre": ""}])
def test_missing_pretokenizer_is_the_default_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keys: dict[str, str]
) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(write(tmp_path / "v.gguf", "gpt2", BYTES, merges=[], **keys))
    assert "does not state how words are split" in caplog.text
    assert tokenizer.decode(tokenizer.encode("a, 123!")) == "a, 123!"


def test_missing_merges_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no merges"):
        load_tokenizer(write(tmp_path / "v.gguf", "gpt2", BYTES, pre="gpt-2"))


def test_pieces_outside_the_byte_alphabet_are_text(tmp_path: Path) -> None:
    tokenizer = bpe(tmp_path / "v.gguf", ["Ġhi", "日本", "<br> x"], [])
    assert [tokenizer.token_bytes(i) for i in range(256, 259)] == [b" hi", "日本".encode(), b"<br> x"]


def test_every_byte_is_a_token_of_its_own_value() -> None:
    assert len(BYTES) == 256
    assert sorted(BYTE_ALPHABET.values()) == list(range(256))
    assert BYTE_ALPHABET["Ġ"] == 32
    assert BYTE_ALPHABET["Ċ"] == 10
    assert BYTE_ALPHABET["ÿ"] == 255


def test_user_defined_tokens_come_longest_first(tmp_path: Path) -> None:
    tokens = [*BYTES, "  ", "    ", "<x>"]
    types = [NORMAL] * 256 + [USER_DEFINED] * 3
    tokenizer = load_tokenizer(
        write(tmp_path / "v.gguf", "gpt2", tokens, types=types, merges=[], pre="gpt-2")
    )
    assert spelled(tokenizer, "a" + " " * 7 + "<x>") == ["a", "    ", "  ", "Ġ", "<x>"]


HARD = {
    "one letter": "a" * 200_000,
    "spaces": " " * 200_000,
    "emoji": "😀" * 50_000,
    "digits": "1" * 100_000 + "x",
    "fractions": "½" * 50_000,
    "wide spaces": "\u3000" * 100_000 + "!",
    "marks": "e" + "\u0301\u0323" * 50_000,
    "newlines": "\r\n" * 50_000,
    "latin-1": bytes(range(256)).decode("latin-1") * 400,
}
HARD_FOR = ("deepseek-llm", "afmoe", "tiny_aya", "superbpe", "qwen2", "gpt-4o", "jais-2")


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
@pytest.mark.parametrize("name", every(9, HARD_FOR))
def test_pathological_text_is_encoded_in_time(tmp_path: Path, name: str, text: str) -> None:
    """Quadratic time, in patterns or in ours, would take longer than a test may."""
    tokenizer = bpe(
        tmp_path / "v.gguf", ["aa", "aaaa", "ĠĠ", "ĠĠĠĠ"], ["a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ"], pre=name
    )
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("n", [299, 300, 301, 302, 599, 1000])
@pytest.mark.parametrize("name", ["afmoe", "tiny_aya", "superbpe"])
def test_long_numbers_keep_their_groups(tmp_path: Path, n: int, name: str) -> None:
    """Cutting a number beforehand, which saves quadratic time, changes no group."""
    number = "1234567890" * 101
    pairs = [number[i : i + 2] for i in range(10)]
    triples = [number[i : i + 3] for i in range(10)]
    merges = [" ".join(p) for p in pairs]
    merges += [merge for t in triples for merge in (f"{t[:2]} {t[2]}", f"{t[0]} {t[1:]}")]
    tokenizer = bpe(tmp_path / "v.gguf", pairs + triples, merges, pre=name)
    groups = [number[: n % 3]] * (n % 3 > 0) + [number[i : i + 3] for i in range(n % 3, n, 3)]
    assert spelled(tokenizer, number[:n]) == groups


def test_newline_runs_of_gemma_are_one_token(tmp_path: Path) -> None:
    """Also without merges up to them. Spaces are spelled `▁`, other characters without a token as bytes."""
    tokens = ["<bos>", "<eos>", *(f"<0x{b:02X}>" for b in range(256)), "a", "▁", "▁a", "\n", "\n\n\n"]
    types = [CONTROL] * 2 + [BYTE] * 256 + [NORMAL] * 5
    keys = {"types": types, "merges": ["▁ a"], "bos_token_id": 0, "eos_token_id": 1, "add_bos_token": False}
    tokenizer = load_tokenizer(write(tmp_path / "v.gguf", "gemma4", tokens, **keys))
    text = "a\n\n\n  a\n\né"
    assert spelled(tokenizer, text) == [*("<bos>", "a", "\n\n\n", "▁", "▁a", "\n", "\n", "<0xC3>", "<0xA9>")]
    assert tokenizer.decode(tokenizer.encode(text)) == text
