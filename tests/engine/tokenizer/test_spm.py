"""SentencePiece merging against a slow reference, and what surrounds it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer import load_tokenizer
from engine.tokenizer.spm import SPMTokenizer
from support.builders.vocabularies import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, published, spm, write
from support.quick import examples

UNTIMED = examples(100)


def reference(text: str, scores: dict[str, float]) -> list[str]:
    """Join the neighbours whose joined piece has the best score, the leftmost of equal ones; repeat."""
    symbols = list(text)
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols
        i = min(pairs)[1]
        symbols[i : i + 2] = ["".join(symbols[i : i + 2])]


# Few characters and few scores: ties, overlapping candidates, pieces whose parts are no pieces (`c`), and
# pieces across words.
PIECES = st.dictionaries(
    st.text(st.sampled_from("aabc▁"), min_size=1, max_size=4), st.integers(-3, 0).map(float), max_size=24
)
TEXTS = st.lists(st.text(st.sampled_from("aaabc "), max_size=40), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spm") / "v.gguf"


@UNTIMED
@given(scores=PIECES, texts=TEXTS)
def test_merges_equal_the_references(file: Path, scores: dict[str, float], texts: list[str]) -> None:
    tokenizer = spm(file, scores, add_space_prefix=False)
    for text in texts:
        expected = []
        for symbol in reference(text.replace(" ", "▁"), {p: s for p, s in scores.items() if len(p) > 1}):
            known = symbol in scores
            expected += [symbol] if known else [f"<0x{b:02X}>" for b in symbol.encode()]
        assert [tokenizer.token_text(i) for i in tokenizer.encode(text, add_special=False)] == expected


@UNTIMED
@given(st.text(max_size=60))
def test_real_vocabulary_merges_equal_the_references(text: str) -> None:
    tokenizer = published("llama-spm")
    assert isinstance(tokenizer, SPMTokenizer)
    vocabulary = tokenizer.vocabulary
    assert vocabulary.scores is not None
    scores = {p: vocabulary.scores[i] for p, i in vocabulary.ids.items() if vocabulary.types[i] == NORMAL}
    ids: list[int] = []
    if text:
        merged = {p: s for p, s in scores.items() if len(p) > 1}
        for symbol in reference("▁" + text.replace(" ", "▁"), merged):
            ids += [vocabulary.ids[symbol]] if symbol in scores else [3 + b for b in symbol.encode()]
    assert tokenizer.encode(text, add_special=False) == ids
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_long_words_merge_correctly_in_reasonable_time() -> None:
    """A quadratic merge would take minutes for each."""
    tokenizer = published("llama-spm")
    assert tokenizer.decode(tokenizer.encode("a" * 100_000)) == "a" * 100_000
    assert tokenizer.decode(tokenizer.encode(" " * 100_000)) == " " * 100_000
    assert len(tokenizer.encode("😀" * 20_000, add_special=False)) == 1 + 4 * 20_000


@pytest.mark.parametrize(
    ("keys", "text", "pieces"),
    [
        ({}, "a", ["<s>", "▁a"]),
        ({"add_bos_token": False}, "a", ["▁a"]),
        ({"add_eos_token": True}, "a", ["<s>", "▁a", "</s>"]),
        ({"add_space_prefix": False}, "a", ["<s>", "a"]),
        ({}, "", ["<s>"]),
        ({}, " a", ["<s>", "▁", "▁a"]),
        ({}, "é", ["<s>", "▁", "<0xC3>", "<0xA9>"]),
        ({}, "\n", ["<s>", "▁", "<0x0A>"]),
        ({}, "a  a ", ["<s>", "▁a", "▁", "▁a", "▁"]),
        ({"remove_extra_whitespaces": True}, " a  a ", ["<s>", "▁a", "▁a"]),
        ({}, "<s>a", ["<s>", "▁", "<0x3C>", "<0x73>", "<0x3E>", "a"]),  # control tokens are not text
    ],
)
def test_spaces_and_special_tokens_around_words_are_encoded(
    tmp_path: Path, keys: dict, text: str, pieces: list[str]
) -> None:
    tokenizer = spm(tmp_path / "v.gguf", {"a": -2.0, "▁": -3.0, "▁a": -1.0}, **keys)
    assert [tokenizer.token_text(i) for i in tokenizer.encode(text)] == pieces


def test_space_is_prefixed_after_each_special_token(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path / "v.gguf", {"a": -2.0, "▁": -3.0, "▁a": -1.0})
    ids = tokenizer.encode("a<s>a</s> a", add_special=False, parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["▁a", "<s>", "▁a", "</s>", "▁", "▁a"]


def test_merges_never_reach_control_tokens(tmp_path: Path) -> None:
    """Pieces on the way to `<s>` exist; text of a user must still not become one."""
    tokenizer = spm(tmp_path / "v.gguf", {"<": 0.0, "s": 0.0, ">": 0.0, "<s": 0.0, "▁": 0.0})
    assert 1 not in tokenizer.encode("<s>", add_special=False)
    assert tokenizer.encode("<s>", add_special=False, parse_special=True) == [1]


def test_character_without_token_or_bytes_is_unknown(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path / "v.gguf", {"a": 0.0, "▁": -1.0}, n_bytes=0)
    ids = tokenizer.encode("aéa", add_special=False)
    assert [tokenizer.token_text(i) for i in ids] == ["▁", "a", "<unk>", "a"]


def test_without_scores_the_leftmost_pair_merges_first(tmp_path: Path) -> None:
    tokens = ["<unk>", "a", "b", "ab", "ba"]
    path = write(tmp_path / "v.gguf", "llama", tokens, types=[UNKNOWN] + [NORMAL] * 4, add_space_prefix=False)
    tokenizer = load_tokenizer(path)
    assert [tokenizer.token_text(i) for i in tokenizer.encode("aba")] == ["ab", "a"]


def test_user_defined_tokens_are_cut_out_and_keep_their_spelling(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", "<0x20>", "a", "▁", "  ", "▁x"]
    types = [UNKNOWN, CONTROL, CONTROL, BYTE, NORMAL, NORMAL, USER_DEFINED, USER_DEFINED]
    path = write(tmp_path / "v.gguf", "llama", tokens, types=types, scores=[0.0] * 8, add_space_prefix=False)
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("a   a", add_special=False) == [4, 6, 5, 4]
    assert tokenizer.token_bytes(6) == b"  "
    assert tokenizer.token_bytes(7) == "▁x".encode()
    assert tokenizer.token_bytes(3) == b" "
