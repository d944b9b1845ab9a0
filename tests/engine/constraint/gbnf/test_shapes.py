"""The shape of a regular part says at least what its texts do."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constraint.gbnf.parser import Alt, Chars, Node, Repeat, Seq, Text, TokenRef
from engine.constraint.gbnf.shapes import LexemeShape, shape_of, token_shape
from support.quick import examples

LETTERS = "aé"
LONGEST = 4
ALL = ["".join(letters) for n in range(LONGEST + 1) for letters in product(LETTERS, repeat=n)]

leaves: st.SearchStrategy[Node] = st.one_of(
    st.sampled_from(["", "a", "é", "aé", "éa"]).map(Text),
    st.tuples(st.sampled_from([((97, 97),), ((233, 233),), ((97, 97), (233, 233))]), st.booleans()).map(
        lambda fields: Chars(*fields)
    ),
)
nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: Seq(tuple(items))),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: Alt(tuple(options))),
        st.tuples(inner, st.integers(0, 2), st.sampled_from([2, 3, None])).map(
            lambda fields: Repeat(*fields)
        ),
    ),
    max_leaves=6,
)


def shape(node: Node) -> LexemeShape:
    return shape_of(node, shape)


def texts(node: Node) -> set[str]:
    """What a node matches of `ALL`."""
    match node:
        case Text(text):
            return {text}
        case Chars(ranges, negated):
            return {c for c in LETTERS if any(low <= ord(c) <= high for low, high in ranges) != negated}
        case Seq(items):
            whole = {""}
            for item in items:
                whole = joined(whole, texts(item))
            return whole
        case Alt(options):
            return set().union(*map(texts, options))
        case Repeat(inner, least, most):
            once, whole, row = texts(inner), set(), {""}
            for n in range((LONGEST + least if most is None else most) + 1):
                whole |= row if n >= least else set()
                row = joined(row, once)
            return whole
    raise AssertionError(node)


def joined(one: set[str], other: set[str]) -> set[str]:
    return {a + b for a in one for b in other if len(a + b) <= LONGEST}


def holds(bits: int, byte: int) -> bool:
    return bool(bits >> byte & 1)


@examples(200)
@given(nodes)
def test_shape_contains_the_bytes_that_texts_begin_and_continue_with(node: Node) -> None:
    known, matching = shape(node), texts(node)
    assert known.nullable == ("" in matching)
    for text in matching:
        if text:
            assert holds(known.first, text.encode()[0])
        for longer in matching:
            if longer != text and longer.startswith(text):
                assert holds(known.extends, longer.encode()[len(text.encode())]) or not text
    if known.single:
        assert {len(text) for text in matching} <= {1}


@pytest.mark.parametrize(("negated", "bytes"), [(False, 1 << 0xFF), (True, (1 << 256) - 1)])
def test_token_begins_with_the_byte_that_no_text_has(negated: bool, bytes: int) -> None:
    known = token_shape(TokenRef(7, negated))
    assert known.first == known.bytes == bytes
    assert not known.nullable
