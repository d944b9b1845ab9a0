"""Special tokens in text: which are cut out, in which order, and what they swallow."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer.special import SpecialTokens
from support.builders.vocabularies import CONTROL, UNKNOWN, USER_DEFINED, byte_level, published
from support.quick import examples

UNTIMED = examples(100)


@pytest.mark.parametrize(
    ("text", "parse", "expected"),
    [
        ("a<s>b", True, ["a", "<s>", "b"]),
        ("a<s>b", False, ["a", "<", "s", ">", "b"]),
        ("<s><s>", True, ["<s>", "<s>"]),
        ("<s>>", True, ["<s>>"]),  # the longer one
        ("<<s>", True, ["<", "<s>"]),
        ("[[x]", False, ["[", "[x]"]),  # user-defined ones are found without parsing
        ("ab[x", True, ["a", "b[x"]),
        ("ab[x]", True, ["a", "b", "[x]"]),  # of equally long ones the smaller id, wherever it stands
        ("q[x]<unk>", True, ["q", "[x]", "<unk>"]),
        ("", True, []),
    ],
)
def test_partition_finds_special_tokens_when_they_are_parsed(
    tmp_path: Path, text: str, parse: bool, expected: list[str]
) -> None:
    added = {"<s>": CONTROL, "<s>>": CONTROL, "[x]": USER_DEFINED, "b[x": USER_DEFINED, "<unk>": UNKNOWN}
    tokenizer = byte_level(tmp_path / "v.gguf", added)
    ids = tokenizer.encode(text, parse_special=parse)
    assert [tokenizer.token_text(i) for i in ids] == expected


TOKENS = st.dictionaries(
    st.text(st.sampled_from("<a>"), min_size=1, max_size=4),
    st.sampled_from([CONTROL, USER_DEFINED]),
    max_size=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer") / "v.gguf"


@UNTIMED
@given(added=TOKENS, text=st.text(st.sampled_from("<a> "), max_size=20), parse=st.booleans())
def test_partition_of_any_text_equals_the_slow_reference(
    file: Path, added: dict[str, int], text: str, parse: bool
) -> None:
    """Token after token, the longest first, is cut out of what is still text."""
    specials = SpecialTokens(byte_level(file, added).vocabulary)
    fragments: list[str | int] = [text]
    order = sorted(enumerate(added, 256), key=lambda item: -len(item[1]))
    for token, piece in order:
        if not parse and added[piece] == CONTROL:
            continue
        cut: list[str | int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                cut.append(fragment)
                continue
            while (at := fragment.find(piece)) >= 0:
                cut += [fragment[:at], token]
                fragment = fragment[at + len(piece) :]
            cut.append(fragment)
        fragments = cut
    assert specials.partition(text, parse) == [f for f in fragments if f != ""]


def test_partition_of_megabytes_with_thousands_of_tokens_ends(tmp_path: Path) -> None:
    """Would take minutes if each token were searched everywhere, piece by piece."""
    added = {f"<extra_{i}>": CONTROL for i in range(5000)}
    tokenizer = byte_level(tmp_path / "v.gguf", added)
    assert len(tokenizer.encode("<" * 500_000, parse_special=True)) == 500_000
    assert tokenizer.encode("<extra_7>" * 20_000, parse_special=True) == [256 + 7] * 20_000


def test_phi_3_strips_space_after_its_tokens() -> None:
    """By the model's name; no key says so."""
    tokenizer = published("phi-3")
    ids = tokenizer.encode("<|user|>\n \n hi<|end|>\n<|assistant|>", add_special=False, parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<|user|>", "▁hi", "<|end|>", "<|assistant|>"]
    ids = tokenizer.encode("<s> hi", add_special=False, parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<s>", "▁", "▁hi"]


def test_mask_token_strips_space_before_it(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path / "v.gguf", {"<mask>": CONTROL}, pre="jina-v2-code")
    ids = tokenizer.encode("a \t<mask> b", parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["a", "<mask>", "Ġ", "b"]


def test_partition_never_cuts_out_an_empty_token(tmp_path: Path) -> None:
    specials = SpecialTokens(byte_level(tmp_path / "v.gguf", {"": CONTROL, "<s>": CONTROL}).vocabulary)
    assert specials.partition("a<s>", True) == ["a", 257]
