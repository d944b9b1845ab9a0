"""`ConstraintMatcher`: where a text stands, what ends it, and how errors of llguidance are worded."""

from __future__ import annotations

from array import array

import pytest

from engine.constraint.matcher import error_line
from engine.errors import ConfigError
from engine.types import Constraint
from support.references.json_walk import END, allowed, compiler

A, B = b"ab"


def test_complete_text_may_stop_and_finally_must_stop() -> None:
    matcher = compiler().compile(Constraint("regex", "ab?"))
    assert not matcher.may_stop
    matcher.commit(A)
    assert matcher.may_stop
    assert not matcher.must_stop
    assert allowed(matcher) == [B, END]
    matcher.commit(B)
    assert matcher.must_stop


def test_token_that_does_not_match_is_an_error_from_then_on() -> None:
    matcher = compiler().compile(Constraint("regex", "a"))
    assert not matcher.accepts(B)
    with pytest.raises(ConfigError):
        matcher.commit(B)
    with pytest.raises(ConfigError):
        allowed(matcher)
    assert not matcher.must_stop


def test_copy_is_independent_including_its_names() -> None:
    matcher = compiler().compile(Constraint("json_object"))
    for byte in b'{"a":1,"':
        matcher.commit(byte)
    copy = matcher.copy()
    for byte in b'b":1,"':
        copy.commit(byte)
    for one, takes_b in ((matcher, True), (copy, False)):
        one.commit(B)
        assert one.accepts(ord('"')) == takes_b


@pytest.mark.exhaustive  # takes seconds
def test_ambiguous_grammar_is_refused_before_it_takes_long() -> None:
    matcher = compiler().compile(Constraint("lark", 'start: e\ne: e e | e e e | "x" | ""'))
    mask = array("I", bytes(4 * compiler().n_words))

    def read() -> None:
        for _ in range(3000):
            matcher.fill(mask)
            matcher.commit(ord("x"))

    with pytest.raises(ConfigError, match=r"too complex|takes too long"):
        read()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("panic: index out of bounds\n  at x.rs", "the grammar compiler failed"),
        ("NoExtensionBias\n<state>", "nothing matches it"),
        ("Too many items (limit 4)", "it is too complex"),
        ("", "it is too complex"),
        ("at 3(7): unknown name: x\n  2 | y", "unknown name: x"),
        ("at 3(7): failed to compile JSON schema: Unimplemented keys", "Unimplemented keys"),
        ("1(2): regex parse error:\n  (\nerror: unclosed group\n", "a regex is not valid: unclosed group"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_error_of_llguidance_becomes_one_line(error: str, line: str) -> None:
    assert error_line(error) == line


def test_error_in_a_clients_grammar_keeps_its_location() -> None:
    assert error_line("at 3(7): unknown name: x", located=True) == "line 3, column 7: unknown name: x"
