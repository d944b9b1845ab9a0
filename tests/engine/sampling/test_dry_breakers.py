"""Token sequences that write a breaker of DRY."""

from __future__ import annotations

from engine.sampling.dry_breakers import DryBreakers

PIECES = ["a", "ab", "b", "bc", "xab", "c", ":\n", "\n", "abcd", "é", "<s>", "aab", "\N{SNOWMAN}x"]


class Vocabulary:
    """Encodes by the longest piece."""

    n_vocab = len(PIECES)

    def __init__(self) -> None:
        self.n_encoded = 0

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        assert not add_special
        self.n_encoded += 1
        ids = []
        while text:
            piece = max((p for p in PIECES if text.startswith(p)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        assert special
        return b"\xff\xfe" if PIECES[token] == "<s>" else PIECES[token].encode()


def sequences(*texts: str) -> set[tuple[str, ...]]:
    actual = DryBreakers(Vocabulary()).sequences(texts)
    assert len(set(actual)) == len(actual)
    return {tuple(PIECES[token] for token in sequence) for sequence in actual}


def test_a_token_that_holds_the_text_breaks_alone() -> None:
    assert sequences("\n") == {(":\n",), ("\n",)}
    assert sequences("é") == {("é",)}
    assert sequences("\N{SNOWMAN}") == {("\N{SNOWMAN}x",)}


def test_a_token_that_ends_with_its_beginning_breaks_with_the_rest() -> None:
    assert sequences("abc") == {("abcd",), ("a", "bc"), ("ab", "c"), ("xab", "c"), ("aab", "c")}
    assert sequences("ba") == {("b", "a"), ("ab", "a"), ("xab", "a"), ("aab", "a")}


def test_sequences_of_several_texts_are_not_repeated() -> None:
    assert sequences("\n", ":", "\n") == {(":\n",), ("\n",)}
    assert sequences() == set()


def test_a_rest_is_at_most_20_tokens_long() -> None:
    longest = max(DryBreakers(Vocabulary()).sequences(["b" + "c" * 39]), key=len)
    assert len(longest) == 21


def test_sequences_of_a_text_are_cached() -> None:
    vocabulary = Vocabulary()
    breakers = DryBreakers(vocabulary)
    first = breakers.sequences(["abc"])
    n = vocabulary.n_encoded
    assert breakers.sequences(["abc"]) == first
    assert vocabulary.n_encoded == n > 0
