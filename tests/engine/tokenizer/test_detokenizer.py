"""Text from tokens and stop strings in it do not depend on where the tokens end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizer.detokenizer import Detokenizer, StopMatcher
from support.quick import examples

UNTIMED = examples(100)


class Pieces:
    """A vocabulary of given byte strings; token -1 is a control token."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        if token < 0:
            return b"<s>" if special else b""
        return self.pieces[token]


def detokenize(pieces: list[bytes]) -> list[str]:
    detokenizer = Detokenizer(Pieces(pieces))
    return [*(detokenizer.push(i) for i in range(len(pieces))), detokenizer.flush()]


@st.composite
def split(draw: st.DrawFn, whole: st.SearchStrategy) -> list:
    """Something cut at random places, some of them the same."""
    value = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(value)), max_size=8)))
    return [value[a:b] for a, b in zip([0, *cuts], [*cuts, len(value)], strict=True)]


# Few letters, so that matches, near misses and repeats are frequent.
TEXT = st.text(st.sampled_from("aab"), max_size=24)
STOPS = st.lists(st.text(st.sampled_from("aab"), min_size=1, max_size=5), max_size=5)


@UNTIMED
@given(split(st.binary(max_size=24) | st.text(max_size=8).map(str.encode)))
def test_pieces_give_the_text_of_the_whole(pieces: list[bytes]) -> None:
    assert "".join(detokenize(pieces)) == b"".join(pieces).decode("utf-8", "replace")


@UNTIMED
@given(st.text(max_size=12))
def test_bytes_one_by_one_show_each_character_when_complete(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    shown = detokenize([bytes((b,)) for b in text.encode()])
    assert [s for s in shown if s] == list(text)


def test_character_over_tokens_is_not_shown_early() -> None:
    llama = "🦙".encode()
    assert detokenize([b"a" + llama[:1], llama[1:3], llama[3:] + b"b"]) == ["a", "", "🦙b", ""]


def test_incomplete_character_at_the_end_is_replaced() -> None:
    assert detokenize([b"ok \xf0\x9f"]) == ["ok ", "\ufffd"]


def test_invalid_bytes_in_the_middle_are_replaced_as_soon_as_known() -> None:
    assert detokenize([b"\xf0\x9f", b"a", b"\xff"]) == ["", "\ufffda", "\ufffd", ""]


def test_control_tokens_are_shown_only_when_requested() -> None:
    pieces = Pieces([b"hello"])
    assert [Detokenizer(pieces).push(i) for i in (-1, 0)] == ["", "hello"]
    assert Detokenizer(pieces, skip_special=False).push(-1) == "<s>"


def test_control_token_does_not_break_a_character() -> None:
    detokenizer = Detokenizer(Pieces(["é".encode()[:1], "é".encode()[1:]]))
    assert [detokenizer.push(i) for i in (0, -1, 1)] == ["", "", "é"]


def test_detokenizer_after_flush_starts_a_new_text() -> None:
    detokenizer = Detokenizer(Pieces([b"\xc3", b"a"]))
    detokenizer.push(0)
    detokenizer.flush()
    assert detokenizer.push(1) == "a"


def feed(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """All that may be sent, and the stop string."""
    matcher, sent = StopMatcher(stops), ""
    for piece in pieces:
        text, stop = matcher.push(piece)
        sent += text
        if stop is not None:
            return sent, stop
    return sent + matcher.flush(), None


def slow(stops: list[str], text: str) -> tuple[str, str | None]:
    """The obvious way: after each character, does a stop string end here? The longest counts."""
    for end in range(1, len(text) + 1):
        actual = [stop for stop in stops if text[:end].endswith(stop)]
        if actual:
            stop = max(actual, key=len)
            return text[: end - len(stop)], stop
    return text, None


@UNTIMED
@given(STOPS, split(TEXT))
def test_stop_strings_are_found_however_text_is_split(stops: list[str], pieces: list[str]) -> None:
    assert feed(stops, pieces) == slow(stops, "".join(pieces))


@UNTIMED
@given(STOPS, TEXT)
def test_no_more_is_held_back_than_could_become_a_stop(stops: list[str], text: str) -> None:
    matcher, sent = StopMatcher(stops), ""
    for i, character in enumerate(text):
        now, stop = matcher.push(character)
        sent += now
        if stop is not None:
            return
        held = text[len(sent) : i + 1]
        tails = (text[j : i + 1] for j in range(i + 2))
        assert held == next(t for t in tails if not t or any(s.startswith(t) for s in stops))


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        ([], ["any", "thing"], ("anything", None)),
        ([""], ["text"], ("text", None)),
        (["aab"], ["aaab"], ("a", "aab")),
        (["aab"], list("aaab"), ("a", "aab")),
        (["END"], ["the E", "N", "D of"], ("the ", "END")),
        (["END"], ["the E", "N", "d"], ("the ENd", None)),
        (["abcd", "bc"], ["xabcd"], ("xa", "bc")),  # complete first
        (["bc", "abc"], ["xabc"], ("x", "abc")),  # complete together: the longer
        (["\n\n", "\nUser:"], ["hi\n", "User", ":"], ("hi", "\nUser:")),
        (["日本"], ["東日", "本"], ("東", "日本")),
        (["a" * 50], ["a" * 49, "b"], ("a" * 49 + "b", None)),
    ],
)
def test_stop_matcher_gives_the_expected_text(
    stops: list[str], pieces: list[str], expected: tuple[str, str | None]
) -> None:
    assert feed(stops, pieces) == expected


def test_held_back_text_comes_with_flush() -> None:
    matcher = StopMatcher(["stop"])
    assert matcher.push("do not sto") == ("do not ", None)
    assert matcher.flush() == "sto"
    assert matcher.push("p") == ("p", None)


def test_many_long_stop_strings_take_linear_time() -> None:
    """Would take minutes if each string were searched after each character."""
    stops = ["a" * 1000 + chr(0x100 + i) for i in range(200)]
    text = "a" * 100_000
    assert feed(stops, [text[i : i + 4] for i in range(0, len(text), 4)]) == (text, None)
