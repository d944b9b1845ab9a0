"""Names of tokens in log-probabilities: text, bytes of a part of a character, control tokens."""

from __future__ import annotations

import math

import pytest

from engine.types import Token
from server.api.common.replies.logprobs import FLOOR, TokenTexts, completion_logprobs, number
from server.generation.output_processor import ShownToken


class Tokenizer:
    """A word, a part of a character, and a control token."""

    words = (b" cat", b"\xe2\x80", b"")

    def __init__(self) -> None:
        self.n_calls = 0

    def token_bytes(self, id: int) -> bytes:
        self.n_calls += 1
        return self.words[id]

    def token_text(self, id: int) -> str:
        return (" cat", "\ufffd", "</s>")[id]


def test_text_of_a_part_of_a_character_is_escaped_bytes() -> None:
    names = TokenTexts(Tokenizer())
    assert [names.text(id) for id in range(3)] == [" cat", "bytes:\\xe2\\x80", "</s>"]


def test_entry_has_the_bytes_whatever_the_token_is() -> None:
    names = TokenTexts(Tokenizer())
    assert [names.entry(id, -0.5) for id in range(3)] == [
        {"token": " cat", "logprob": -0.5, "bytes": list(b" cat")},
        {"token": "\\xe2\\x80", "logprob": -0.5, "bytes": [0xE2, 0x80]},
        {"token": "</s>", "logprob": -0.5, "bytes": list(b"</s>")},
    ]


def test_repeated_token_is_looked_up_once() -> None:
    tokenizer = Tokenizer()
    names = TokenTexts(tokenizer)
    for _ in range(3):
        names.text(0)
        names.entry(0, None)
    assert tokenizer.n_calls == 1


@pytest.mark.parametrize(
    ("logprob", "expected"), [(None, None), (-0.25, -0.25), (FLOOR, FLOOR), (-1e5, FLOOR), (-math.inf, FLOOR)]
)
def test_logprob_below_the_floor_becomes_the_floor(logprob: float | None, expected: float | None) -> None:
    assert number(logprob) == expected


def test_top_logprobs_of_completions_when_the_drawn_token_is_not_among_the_most_likely_include_it() -> None:
    texts = TokenTexts(Tokenizer())
    shown = [ShownToken(Token(2, -3.0, [(0, -0.1)]), 0), ShownToken(Token(0, -0.1, [(0, -0.1)]), 4)]
    logprobs = completion_logprobs(texts, [*shown, ShownToken(Token(0), 8)], 1)["top_logprobs"]
    assert logprobs == [{" cat": -0.1, "</s>": -3.0}, {" cat": -0.1}, None]
    assert completion_logprobs(texts, shown, 0)["top_logprobs"] is None
