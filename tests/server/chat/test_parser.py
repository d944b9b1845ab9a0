"""Pieces of one output are merged."""

from __future__ import annotations

from server.chat.parser import ParsedOutput, ToolCallDelta, merge_parsed


def test_merge_no_pieces_is_empty() -> None:
    assert merge_parsed([]) == ParsedOutput()
    assert not merge_parsed([])


def test_merge_joins_content_and_reasoning() -> None:
    pieces = [ParsedOutput("a", "x"), ParsedOutput(reasoning="y"), ParsedOutput("b")]
    assert merge_parsed(pieces) == ParsedOutput("ab", "xy")


def test_merge_interleaved_calls_gives_one_delta_each_in_order() -> None:
    second = ToolCallDelta(1, "id2", "g", "[")
    first = ToolCallDelta(0, "id1", "f", '{"a"')
    pieces = [
        ParsedOutput(tools=(second,)),
        ParsedOutput(tools=(first, ToolCallDelta(1, arguments="]"))),
        ParsedOutput(tools=(ToolCallDelta(0, arguments=": 1}"),)),
    ]
    assert merge_parsed(pieces).tools == (
        ToolCallDelta(0, "id1", "f", '{"a": 1}'),
        ToolCallDelta(1, "id2", "g", "[]"),
    )
