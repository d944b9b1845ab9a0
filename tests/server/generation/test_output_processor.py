"""From emissions to pieces: whole characters, stop strings, tokens beside their text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import FinishReason, Request, StepOutput, Timings, Token
from server.chat.output import OutputDelta, ShownToken, ToolCallDelta
from server.chat.prompt import Prompt
from server.generation.options import GenerationOptions
from server.generation.output_processor import OutputSequence, by_token, merge_deltas
from support.fakes.engine import ids, tokenizer
from support.quick import examples


def sequence(stops=(), show=False, prompt=None) -> OutputSequence:
    options = GenerationOptions(id_prefix="", stop=stops, return_tokens=show)
    return OutputSequence(0, 0, prompt or Prompt(), Request(id="r", prompt=[1]), options, tokenizer())


def run(output: OutputSequence, tokens, cuts=(), finish=FinishReason.LENGTH):
    """Feed `tokens` cut at `cuts`; the text, the shown tokens with their offsets."""
    text, shown = "", []
    bounds = sorted({0, *(cut for cut in cuts if cut < len(tokens)), len(tokens)})
    parts = [tokens[a:b] for a, b in pairwise(bounds)] or [[]]
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        emission = StepOutput(id="r", tokens=[Token(id) for id in part], finish=finish if last else None)
        piece = output.feed(emission)
        if piece is not None:
            text += piece.text
            shown += [(token.id, start) for token, start in piece.tokens]
        if output.end:
            break
    return text, shown


texts = st.text(st.sampled_from("ab é🍕\n<|>ß"), max_size=12)


@examples(300)
@given(
    text=texts,
    stops=st.lists(st.text(st.sampled_from("ab é🍕"), min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    show=st.booleans(),
)
def test_text_in_any_chunks_ends_before_the_first_stop_string(text, stops, cuts, show):
    tokens = tokenizer().encode(text, add_special=False)
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    expected, reason = text, "length"
    if ends:
        stop = min(ends)[2]
        expected, reason = text[: text.find(stop)], "stop"
    output = sequence(stops, show)
    result, shown = run(output, tokens, cuts)
    assert result == expected
    assert output.end == reason
    if show:
        assert [id for id, _ in shown] == tokens[: len(shown)]
        assert [start for _, start in shown] == [_characters(tokens[:i]) for i in range(len(shown))]
        if reason == "length":
            assert len(shown) == len(tokens)


def _characters(tokens) -> int:
    data = b"".join(map(tokenizer().token_bytes, tokens))
    for cut in range(len(data), -1, -1):
        try:
            return len(data[:cut].decode())
        except UnicodeDecodeError:
            continue
    raise AssertionError


def test_broken_character_at_the_end_becomes_a_replacement_character():
    pizza = ids("🍕")
    assert len(pizza) > 1
    output = sequence()
    assert run(output, [*ids("a"), *pizza[:-1]])[0] == "a\ufffd"
    assert run(sequence(stops=["zz"]), [*ids("a"), *pizza[:-1]])[0] == "a\ufffd"


def test_half_a_character_is_never_sent():
    output = sequence()
    for id in ids("🍕")[:-1]:
        assert output.feed(StepOutput(id="r", tokens=[Token(id)])) is None
    assert output.feed(StepOutput(id="r", tokens=[Token(ids("🍕")[-1])])).text == "🍕"


def test_the_end_of_text_is_counted_but_not_shown():
    eos = tokenizer().eos_id
    output = sequence(show=True)
    text, shown = run(output, [*ids("ab"), eos], finish=FinishReason.STOP)
    assert text == "ab"
    assert eos not in [id for id, _ in shown]
    assert output.n_generated == len(ids("ab")) + 1
    assert output.end == "stop"


def test_text_held_back_for_a_stop_string_is_sent_at_the_end():
    for reason, name in (
        (FinishReason.STOP, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.TIMEOUT, "length"),
    ):
        output = sequence(stops=["ab!"], show=True)
        text, shown = run(output, ids("ab"), finish=reason)
        assert (text, output.end) == ("ab", name)
        assert [id for id, _ in shown] == ids("ab")


def test_offsets_begin_after_the_echoed_prompt():
    _, shown = run(sequence(show=True, prompt=Prompt(echo="12345")), ids("ab"))
    assert shown[0][1] == 5


def test_timings_of_the_engine_are_kept_and_those_of_a_cut_session_counted():
    output = sequence(stops=["b"])
    output.feed(
        StepOutput(id="r", tokens=[Token(ids("a")[0])], timings=Timings(prompt_n=5, cached_n=2, n_batch=9))
    )
    output.first_at = 1.0
    output.feed(StepOutput(id="r", tokens=[Token(ids("b")[0])]))
    assert output.end == "stop"
    assert (output.timings.prompt_n, output.timings.cached_n, output.timings.n_batch) == (5, 2, 9)
    assert output.timings.predicted_n == 2
    assert output.timings.predicted_ms > 0


def test_drafts_are_counted_also_where_a_stop_string_ends_the_text():
    created = sequence(stops=["b"])
    created.feed(StepOutput(id="r", tokens=[Token(ids("a")[0])], timings=Timings(prompt_n=5)))
    for output in by_token(
        StepOutput(id="r", tokens=[Token(id) for id in ids("abc")], draft_n=4, draft_accepted=2)
    ):
        if created.end is None:
            created.feed(output)
    assert (created.end, created.n_generated) == ("stop", len(ids("a")) + len(ids("ab")))
    assert (created.timings.draft_n, created.timings.draft_accepted) == (4, 2)


def test_drafts_before_an_engine_restart_are_counted():
    output = sequence()
    token = Token(ids("a")[0])
    output.feed(StepOutput(id="r", tokens=[token], timings=Timings(prompt_n=5)))
    output.feed(StepOutput(id="r", tokens=[token, token], draft_n=3, draft_accepted=1))
    end = Timings(prompt_n=5, predicted_n=5, draft_n=2, draft_accepted=1)  # of the next engine
    last = StepOutput(id="r", tokens=[token, token], finish=FinishReason.LENGTH, timings=end)
    last.draft_n, last.draft_accepted = 2, 1
    output.feed(last)
    assert (output.timings.draft_n, output.timings.draft_accepted) == (5, 2)


@given(st.integers(0, 6), st.booleans())
def test_by_token_splits_a_step_without_loss(n, ends):
    tokens = [Token(i) for i in range(n)]
    finish = FinishReason.STOP if ends else None
    output = StepOutput(id="r", tokens=tokens, finish=finish, timings=Timings(), draft_n=3, draft_accepted=2)
    parts = list(by_token(output))
    assert [token for part in parts for token in part.tokens] == tokens
    assert all(len(part.tokens) <= 1 for part in parts)
    assert [part.finish for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert (parts[-1].finish, parts[-1].timings) == (finish, Timings())
    assert sum(part.draft_n for part in parts) == 3
    assert sum(part.draft_accepted for part in parts) == 2


@pytest.mark.parametrize("reason", [FinishReason.ERROR, FinishReason.CANCELLED])
def test_engine_failure_ends_the_sequence_with_its_reason(reason):
    output = sequence()
    output.feed(StepOutput(id="r", finish=reason, error="why"))
    assert (output.end, output.engine_finish, output.error) == ("error", reason, "why")


def test_progress_is_kept():
    output = sequence()
    assert output.feed(StepOutput(id="r", processed=17)) is None
    assert output.processed == 17


class BracketedReasoning(Prompt):
    def new_parser(self) -> BracketParser:
        return BracketParser()


class BracketParser:
    """A parser that takes what is between brackets for reasoning and holds back the last character."""

    def __init__(self) -> None:
        self.reasoning, self.has_calls, self.held = False, True, ""

    def push(self, text: str, last: bool = False) -> OutputDelta:
        text, self.held = self.held + text, ""
        if not last:
            text, self.held = text[:-1], text[-1:]
        content = reasoning = ""
        for character in text:
            if character in "[]":
                self.reasoning = character == "["
            elif self.reasoning:
                reasoning += character
            else:
                content += character
        return OutputDelta(content, reasoning)


@pytest.mark.parametrize("cuts", [(), (1, 2, 3, 4, 5, 6, 7, 8), (3,)])
def test_parser_gets_the_text_before_the_stop_string_and_its_end(cuts):
    tokens = tokenizer().encode("[ab] c d END e", add_special=False)
    output = sequence(stops=["END"], prompt=BracketedReasoning())
    pieces = []
    bounds = sorted({0, *(cut for cut in cuts if cut < len(tokens)), len(tokens)})
    for a, b in pairwise(bounds):
        pieces.append(output.feed(StepOutput(id="r", tokens=[Token(id) for id in tokens[a:b]])))
        if output.end:
            break
    actual = merge_deltas([piece for piece in pieces if piece is not None])
    assert (actual.content.strip(), actual.reasoning) == ("c d", "ab")
    assert output.end == "tool_calls"
    assert output.stop_string == "END"
    assert 0 < output.n_reasoning <= output.n_generated


def test_merge_of_nothing_is_empty() -> None:
    assert merge_deltas([]) == OutputDelta()


def test_merge_joins_content_reasoning_text_and_tokens() -> None:
    first, second = ShownToken(Token(1), 0), ShownToken(Token(2), 3)
    pieces = [
        OutputDelta("a", "x", text="<x>a", tokens=[first]),
        OutputDelta(reasoning="y", tokens=[second]),
        OutputDelta("b", text="b"),
    ]
    assert merge_deltas(pieces) == OutputDelta("ab", "xy", text="<x>ab", tokens=(first, second))


def test_merge_of_interleaved_calls_gives_one_delta_each_in_order() -> None:
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
