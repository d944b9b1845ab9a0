"""What every tokenizer does around its pieces: ends, surrogates, decoding, the estimate of long texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.tokenizer import load_tokenizer
from engine.tokenizer.base import byte_of
from engine.tokenizer.detokenizer import Detokenizer
from support.builders.vocabularies import CONTROL, NORMAL, USER_DEFINED, byte_level, published

STORIES = Path(__file__).parents[3] / "models" / "stories.gguf"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pre": "gpt-2"}, (False, False)),
        ({"pre": "llama-bpe"}, (True, False)),
        ({"pre": "llama-bpe", "add_bos_token": False, "add_eos_token": True}, (False, True)),
    ],
)
def test_encode_adds_ends_when_the_file_or_the_kind_says_so(
    tmp_path: Path, keys: dict, expected: tuple[bool, bool]
) -> None:
    keys = {"bos_token_id": 256, "eos_token_id": 257} | keys
    tokenizer = byte_level(tmp_path / "v.gguf", {"<b>": CONTROL, "<e>": CONTROL}, **keys)
    assert (tokenizer.add_bos, tokenizer.add_eos) == expected
    around = [256] * expected[0] + tokenizer.encode("a", add_special=False) + [257] * expected[1]
    assert tokenizer.encode("a") == around


def test_encode_adds_no_special_token_that_does_not_exist(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {}, add_bos_token=True, add_eos_token=True)
    assert (tokenizer.add_bos, tokenizer.add_eos) == (False, False)
    assert tokenizer.encode("") == []


def test_control_tokens_are_not_text(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<s>": CONTROL, "[x]": USER_DEFINED})
    ids = tokenizer.encode("<s>a[x]<s>", parse_special=True)
    assert tokenizer.decode(ids) == "a[x]"
    assert tokenizer.decode(ids, skip_special=False) == "<s>a[x]<s>"
    for skip in (True, False):
        detokenizer = Detokenizer(tokenizer, skip_special=skip)
        assert "".join(map(detokenizer.push, ids)) == tokenizer.decode(ids, skip_special=skip)


def test_incomplete_characters_are_replaced() -> None:
    tokenizer = load_tokenizer(STORIES)
    ids = tokenizer.encode("🦊", add_special=False)
    assert len(ids) > 1
    assert tokenizer.decode(ids[:-1]) == "\ufffd"


def test_space_that_encode_added_is_removed_once() -> None:
    tokenizer = published("llama-spm")
    for text in ("hi", " hi", "  hi", " ", "", "\n", "é"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
    ids = tokenizer.encode("hi")
    assert tokenizer.decode(ids, skip_special=False) == "<s> hi"
    # A stream goes on from a prompt: nothing is removed.
    assert Detokenizer(tokenizer).push(ids[1]) == " hi"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "😀\ud83d"])
def test_unpaired_surrogates_are_replaced(text: str) -> None:
    for tokenizer in (load_tokenizer(STORIES), published("llama-spm")):
        expected = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
        assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_paired_surrogates_are_joined() -> None:
    tokenizer = load_tokenizer(STORIES)
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@pytest.mark.parametrize("token", [-1, 2048, 1 << 40])
def test_tokens_outside_the_vocabulary_are_refused(token: int) -> None:
    tokenizer = load_tokenizer(STORIES)
    for call in (
        tokenizer.token_bytes,
        tokenizer.token_text,
        tokenizer.is_special,
        lambda t: tokenizer.decode([t]),
    ):
        with pytest.raises(
            ConfigError, match=f"token {token} is not in the vocabulary; ids go from 0 to 2047"
        ):
            call(token)


def test_min_tokens_is_a_lower_bound() -> None:
    for tokenizer in (load_tokenizer(STORIES), published("llama-spm"), published("phi-3")):
        for text in ("", "a", " " * 1000, "hello world " * 100, "é" * 100, "1 -" * 100_000):
            n = len(tokenizer.encode(text, add_special=False))
            for enough in (None, 10, 10**9):
                assert 0 <= tokenizer.min_tokens(text, enough) <= n
    assert load_tokenizer(STORIES).min_tokens("a" * 1_000_000) > 10_000


@pytest.mark.parametrize("text", ["1 -" * 1_000_000, "😀" * 2_000_000, "<s>" * 1_000_000])
def test_min_tokens_of_a_far_too_long_text_stops_early(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    """Without encoding more of it than it takes, also where one token may stand for a thousand characters."""
    tokenizer = byte_level(tmp_path / "v.gguf", {"x" * 1000: NORMAL, "<s>": CONTROL})
    seen: list[int] = []
    encode = tokenizer._encode
    monkeypatch.setattr(tokenizer, "_encode", lambda parts: seen.append(len(parts)) or encode(parts))
    assert tokenizer.min_tokens(text, 4096) >= 4096
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("piece", "value"),
    [("<0x0A>", 10), ("<0xff>", 255), ("<0xZZ>", None), ("<0x0A", None), ("<0x100>", None), ("a", None)],
)
def test_byte_of_a_piece_is_its_value_or_none(piece: str, value: int | None) -> None:
    assert byte_of(piece) == value
