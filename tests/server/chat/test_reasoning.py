"""Reasoning is split off an answer, however that is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.output import OutputDelta
from server.chat.prompt import AnswerParser
from server.chat.reasoning import (
    KNOWN_MARKERS,
    ReasoningMarkers,
    ReasoningParser,
    find_reasoning_markers,
)
from support.api.tools import calls_of, new_parser, read
from support.quick import examples

THINK = KNOWN_MARKERS[0]


def split(
    text: str, *, opened: bool = False, raw: bool = False, markers: ReasoningMarkers = THINK
) -> OutputDelta:
    return read(AnswerParser(ReasoningParser(markers, opened, raw), None, raw), [text])


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("<think>\nI see.\n</think>\n\nYes.", "Yes.", "I see."),
        (" \n<think>I see.</think>Yes.", "Yes.", "I see."),
        ("<think>\n\n</think>\n\nYes.\n", "Yes.\n", ""),
        ("<think>a </ b\n\nc </think> d </think>", "d </think>", "a </ b\n\nc"),
        ("<think>cut off \n", "", "cut off"),
        ("<think>cut off </thin", "", "cut off </thin"),
        ("Yes.", "Yes.", ""),
        ("  Yes <think>no</think>", "  Yes <think>no</think>", ""),
        ("<thinking>", "<thinking>", ""),
        ("<thi", "<thi", ""),
        (" \n<thi", " \n<thi", ""),
        (" \n", " \n", ""),
        ("", "", ""),
    ],
)
def test_block_at_the_beginning_is_reasoning(text, content, reasoning):
    assert split(text) == OutputDelta(content, reasoning)
    raw = split(text, raw=True)
    assert raw == OutputDelta(text)


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("I see.\n</think>\n\nYes.", "Yes.", "I see."),
        ("\n<think>\nI see.</think>Yes.", "Yes.", "I see."),  # some write again what the prompt has
        ("</think>Yes.", "Yes.", ""),
        ("I see", "", "I see"),
    ],
)
def test_block_opened_by_the_prompt_is_reasoning(text, content, reasoning):
    assert split(text, opened=True) == OutputDelta(content, reasoning)
    assert split(text, opened=True, raw=True) == OutputDelta(text)


def test_markers_of_every_known_model_are_split():
    for markers in KNOWN_MARKERS:
        assert split(f"{markers.start}hm{markers.end}yes", markers=markers) == OutputDelta("yes", "hm")


def test_calls_are_parsed_after_reasoning_but_not_in_it():
    text = (
        '<think>Maybe <tool_call>{"name": "now"}</tool_call>?</think>\n<tool_call>{"name": "now"}</tool_call>'
    )
    for raw in (False, True):
        parser = AnswerParser(ReasoningParser(THINK, False, raw), new_parser("hermes"), raw)
        parts = read(parser, list(text))
        assert calls_of(parts) == [("id1", "now", {})]
        assert parser.has_calls
        shown = 'Maybe <tool_call>{"name": "now"}</tool_call>?'
        assert parts[:2] == ((f"<think>{shown}</think>", "") if raw else ("", shown))


def test_parser_knows_whether_it_is_in_reasoning():
    parser = AnswerParser(ReasoningParser(THINK, False), None)
    seen = []
    for piece in ("<th", "ink>", "hm", "</think>", "yes"):
        parser.push(piece)
        seen.append(parser.reasoning)
    assert seen == [False, True, True, False, False]
    assert AnswerParser(ReasoningParser(THINK, True), None).reasoning


@examples(200)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<", "think", ">", " ", "\n", "a", "é", "</"]), max_size=12
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_split_of_the_text_gives_the_same_answer(pieces, opened, raw):
    text = "".join(pieces)
    parts = read(AnswerParser(ReasoningParser(THINK, opened, raw), None, raw), pieces)
    assert parts == split(text, opened=opened, raw=raw)
    assert parts == read(AnswerParser(ReasoningParser(THINK, opened, raw), None, raw), list(text))
    if raw:
        assert parts == OutputDelta(text)


def test_reasoning_markers_are_found_for_each_model():
    def none(text: str) -> bool:
        return False

    assert find_reasoning_markers("… </think> …", none) == THINK
    assert find_reasoning_markers("… [/THINK] …", none) == ReasoningMarkers("[THINK]", "[/THINK]")
    assert find_reasoning_markers("nothing", none) is None
    assert find_reasoning_markers("nothing", {"<think>", "</think>"}.__contains__) == THINK
    assert find_reasoning_markers("nothing", {"<think>"}.__contains__) is None
    assert find_reasoning_markers("<|im_start|> … <|end|>", none) is None
