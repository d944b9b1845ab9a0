"""The search for special tokens matches all of them, however many there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.chat.template.special_tokens import special_token_pattern
from support.fakes.engine import tokenizer

words = st.lists(st.text(st.sampled_from("<|ab>(*"), min_size=2, max_size=5), max_size=8)


@given(words, st.text(st.sampled_from("<|ab>(*é"), max_size=30))
def test_pattern_finds_the_longest_tokens_in_order(words, text):
    matches = [(match.start(), match[0]) for match in special_token_pattern(words).finditer(text)]
    expected, i = [], 0
    while i < len(text):
        here = max((word for word in words if text.startswith(word, i)), key=len, default=None)
        if here is not None:
            expected.append((i, here))
        i += len(here) if here else 1
    assert matches == expected


def test_pattern_of_no_tokens_matches_nothing():
    assert not special_token_pattern([]).search("anything")
    assert not special_token_pattern(["a", ""]).search("a")


def test_pattern_of_thousands_of_tokens_is_fast():
    pattern = special_token_pattern(f"<unused{i}>" for i in range(6000))
    assert pattern.sub("", "a<unused5999>b<unused6000>c<unused1>") == "ab<unused6000>c"
    assert not pattern.search("<" * 1_000_000 + "<unused" * 50_000)


def test_pattern_matches_long_tokens():
    word = "<" + "x" * 3000 + ">"
    assert special_token_pattern([word, word + "y"]).fullmatch(word)


def test_pattern_finds_the_bundled_models_tokens():
    special = [tokenizer().token_text(i) for i in range(tokenizer().n_vocab) if tokenizer().is_special(i)]
    assert "<|end|>" in special
    assert special_token_pattern(special).findall("a<|end|>b<|user|>") == ["<|end|>", "<|user|>"]
