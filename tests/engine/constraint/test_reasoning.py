"""Reasoning blocks, token by token: what may come, what must, and where the answer begins."""

from __future__ import annotations

import pytest

from engine.constraint.reasoning import ReasoningBlock, check_reasoning
from engine.errors import ConfigError
from engine.types import Thinking

# A vocabulary: tokens without text are the format's.
BYTES = {
    1: b"",  # <think>
    2: b"",  # </think>
    3: b"<",
    4: b"think",
    5: b">",
    6: b"</",
    7: b" ",
    8: b"\n",
    10: b"a",
    11: b"b",
    12: b"\xf0\x9f",  # the first half of a character
    13: b"\x98\x80",  # its second half
    14: b">\n",
    15: b"</thi",
    16: b"nk",
    17: b"",  # another token of the format
}
OPEN, CLOSE = (1,), (2,)
TEXT_OPEN, TEXT_CLOSE = (3, 4, 5), (6, 4, 5)


def block(**fields: object) -> ReasoningBlock:
    return ReasoningBlock(Thinking(**fields), BYTES.__getitem__)  # type: ignore[arg-type]


def states(subject: ReasoningBlock, tokens: list[int]) -> str:
    """Before each token and at the end: before, opening, inside, answer; a capital where one is forced."""
    content = ""
    for token in [*tokens, None]:
        state = "a" if subject.over else "i" if subject.inside else "o" if subject.started else "b"
        content += state.upper() if subject.forced is not None else state
        if token is not None:
            subject.commit(token)
    return content


WALKS = [
    # opened by the model, or not at all
    ({"start": OPEN, "end": CLOSE}, [1, 10, 10, 2, 10], "biiiaa"),
    ({"start": OPEN, "end": CLOSE}, [10, 1, 10], "baaa"),
    ({"start": OPEN, "end": CLOSE}, [7, 8, 1, 10, 2], "bbbiia"),
    ({"start": OPEN, "end": CLOSE}, [17, 1], "baa"),
    ({"start": TEXT_OPEN, "end": TEXT_CLOSE}, [3, 4, 5, 10, 6, 4, 5, 10], "booiiiiaa"),
    ({"start": TEXT_OPEN, "end": TEXT_CLOSE}, [3, 10, 4], "boaa"),
    # opened by the prompt
    ({"end": CLOSE, "opened": True}, [10, 2, 10], "iiaa"),
    ({"start": OPEN, "end": CLOSE, "opened": True}, [1, 2], "iia"),
    # text ends the block however it is cut into tokens; tokens without text only as they are
    ({"end": TEXT_CLOSE, "opened": True}, [15, 16, 14, 10], "iiiaa"),
    ({"end": TEXT_CLOSE, "opened": True}, [10, 6, 4, 10, 6, 4, 5], "iiiiiiia"),
    ({"end": CLOSE, "opened": True}, [6, 4, 5, 2], "iiiia"),
    # a budget
    ({"end": CLOSE, "opened": True, "budget": 2}, [10, 10, 2, 10], "iiIaa"),
    ({"end": CLOSE, "opened": True, "budget": 2}, [10, 2, 10], "iiaa"),
    ({"end": CLOSE, "opened": True, "budget": 0}, [2, 10], "Iaa"),
    ({"start": OPEN, "end": CLOSE, "budget": 0}, [1, 2, 10], "bIaa"),
    ({"start": OPEN, "end": CLOSE, "budget": 0}, [10, 10], "baa"),
    ({"start": OPEN, "end": CLOSE, "budget": 3}, [1, 10, 10, 10, 2], "biiiIa"),
    ({"end": TEXT_CLOSE, "opened": True, "budget": 1}, [10, 6, 4, 5, 10], "iIIIaa"),
    # the end that the model had begun itself is gone on with
    ({"end": TEXT_CLOSE, "opened": True, "budget": 2}, [10, 6, 4, 5, 10], "iiIIaa"),
    # characters are not cut in two
    ({"end": CLOSE, "opened": True, "budget": 1}, [12, 13, 2], "iiIa"),
    ({"end": CLOSE, "opened": True, "budget": 1}, [12, 10, 2], "iiIa"),
]


@pytest.mark.parametrize(("fields", "tokens", "expected"), WALKS)
def test_block_after_each_token_is_in_the_expected_state(
    fields: dict[str, object], tokens: list[int], expected: str
) -> None:
    assert states(block(**fields), tokens) == expected


def test_spent_budget_forces_the_end_tokens_in_order() -> None:
    subject, forced = block(end=TEXT_CLOSE, opened=True, budget=1), []
    subject.commit(10)
    while (token := subject.forced) is not None:
        forced.append(token)
        subject.commit(token)
    assert tuple(forced) == TEXT_CLOSE
    assert subject.over


def test_opening_returns_the_next_opening_token() -> None:
    subject = block(start=TEXT_OPEN, end=TEXT_CLOSE)
    assert subject.opening == 3
    assert subject.ambiguous(3)
    assert not subject.ambiguous(10)
    subject.commit(3)
    assert subject.opening == 4
    assert not subject.ambiguous(4)
    assert not block(start=OPEN, end=CLOSE).ambiguous(1)


def test_commit_says_which_tokens_are_constrained() -> None:
    subject = block(start=OPEN, end=CLOSE)
    about = [subject.commit(token) for token in (8, 1, 10, 2, 10, 2)]
    assert about == [True, False, False, False, True, True]


def test_a_long_block_is_followed_in_constant_memory() -> None:
    subject = block(end=TEXT_CLOSE, opened=True)
    for _ in range(5000):
        subject.commit(10)
    assert len(subject._tail) < 100
    for token in TEXT_CLOSE:
        subject.commit(token)
    assert subject.over


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": OPEN, "end": ()}, "needs the tokens that end it"),
        ({"end": CLOSE}, "needs the tokens that open it"),
        ({"end": CLOSE, "opened": True, "budget": -1}, "must not be negative"),
        ({"end": (99,), "opened": True}, "outside of the vocabulary"),
        ({"start": (-1,), "end": CLOSE}, "outside of the vocabulary"),
        ({"start": OPEN * 65, "end": CLOSE}, "at most 64"),
    ],
)
def test_block_that_cannot_be_followed_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_reasoning(Thinking(**fields), 32)  # type: ignore[arg-type]
    check_reasoning(Thinking(start=OPEN, end=CLOSE, budget=0), 32)
