"""Pieces of one output are merged."""

from __future__ import annotations

from engine.types import Token
from server.chat.output import OutputDelta, ShownToken, ToolCallDelta, merge_deltas


def test_merge_no_pieces_is_empty() -> None:
    assert merge_deltas([]) == OutputDelta()


def test_merge_joins_content_reasoning_text_and_tokens() -> None:
    first, second = ShownToken(Token(1), 0), ShownToken(Token(2), 3)
    pieces = [
        OutputDelta("a", "x", text="<x>a", tokens=[first]),
        OutputDelta(reasoning="y", tokens=[second]),
        OutputDelta("b", text="b"),
    ]
    assert merge_deltas(pieces) == OutputDelta("ab", "xy", text="<x>ab", tokens=(first, second))


def test_merge_interleaved_calls_gives_one_delta_each_in_order() -> None:
    second = ToolCallDelta(1, "id2", "g", "[")
    first = ToolCallDelta(0, "id1", "f", '{"a"')
    pieces = [
        OutputDelta(tools=(second,)),
        OutputDelta(tools=(first, ToolCallDelta(1, arguments="]"))),
        OutputDelta(tools=(ToolCallDelta(0, arguments=": 1}"),)),
    ]
    assert merge_deltas(pieces).tools == (
        ToolCallDelta(0, "id1", "f", '{"a": 1}'),
        ToolCallDelta(1, "id2", "g", "[]"),
    )
