"""How much is drafted, by chances and measured costs."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.cell_pool import CellPool
from engine.config import MAX_DRAFT, NGRAM, SchedulerConfig
from engine.scheduler.drafter import NgramDrafter
from engine.scheduler.drafting import (
    FIRST_ROW_COST,
    GAIN,
    LEAST_ROW_COST,
    LOSS,
    MOST_STEPS,
    TEXT_TRIAL,
    TRIAL,
    DraftCredit,
    Drafting,
    StepCosts,
)
from engine.scheduler.sequence import ScheduledSequence
from engine.types import InferenceParameters, Request
from support.quick import examples

NUMBERS = count()
TEXT = [*range(100, 160)] * 3  # with itself again, so that the next tokens are all but sure


def sequence(tokens: list[int], draft_max: int = 16, max_tokens: int | None = None) -> ScheduledSequence:
    request = Request(
        id=f"{next(NUMBERS)}",
        prompt=tokens[:1],
        params=InferenceParameters(max_tokens=max_tokens),
        draft_max=draft_max,
    )
    result = ScheduledSequence(request, CellPool(8), None, SchedulerConfig(n_ctx=4096), arrival=1, now=0.0)
    result.tokens.extend(tokens[1:])
    return result


def choose(drafting: Drafting, sequences: list[ScheduledSequence], room: int) -> list[list[int]]:
    """The drafts of sequences that grew token by token."""
    for one in sequences:
        tokens = one.tokens[1:]
        del one.tokens[1:]
        for token in tokens:
            one.tokens.append(token)
            if one.drafts:
                drafting.drafter(one).chances(one, 1)
    return drafting.choose(sequences, room)


def measured(row: float, *, rows: tuple[int, ...] = (1, 5, 17), ms: float = 10.0) -> Drafting:
    """After steps in which a further row took `row` of a step."""
    drafting = Drafting()
    for _ in range(20):
        for n in rows:
            time = ms * (1 + row * (n - 1))
            drafting.costs.measured(n, time, time)
    return drafting


@pytest.mark.parametrize("row", [0.03, 0.2, 0.8])
def test_costs_match_those_of_the_line_through_the_measurements(row: float) -> None:
    costs = measured(row).costs
    assert costs.row == pytest.approx(row)
    assert costs.of(9) / costs.of(1) == pytest.approx(1 + 8 * row)


def test_costs_of_one_step_size_do_not_determine_others() -> None:
    assert measured(0.5, rows=(3,)).costs.row == FIRST_ROW_COST


def test_costs_tolerate_a_delayed_step() -> None:
    drafting = measured(0.1)
    drafting.costs.measured(17, 10_000.0, 10_000.0)
    assert drafting.costs.row < 0.5


def test_costs_of_a_new_graph_match_those_of_a_step_with_other_rows() -> None:
    costs = StepCosts()
    for _ in range(20):
        for rows in (1, 1, 2, 2):
            costs.measured(rows, 10.0, 13.0 if rows != costs.last_rows else 10.5)
    assert costs.switch == pytest.approx(0.3, abs=0.01)
    assert costs.of(2) == pytest.approx(1 + costs.row)
    assert costs.of(1) == pytest.approx(1.3, abs=0.01)


@examples(100)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e9), st.floats(0, 1e9)), max_size=30))
def test_costs_stay_within_bounds(steps: list[tuple[int, float, float]]) -> None:
    costs = StepCosts()
    for step in steps:
        costs.measured(*step)
        assert LEAST_ROW_COST <= costs.row <= 1
        assert 0 <= costs.switch <= 1


def test_choose_drafts_the_maximum_of_certain_tokens() -> None:
    assert list(map(len, choose(measured(0.1), [sequence(TEXT)], 100))) == [16]
    assert list(map(len, choose(measured(0.1), [sequence(TEXT)], 5))) == [5]
    assert choose(measured(0.1), [sequence(TEXT)], 3) == [TEXT[:3]]


def test_choose_drafts_no_unlikely_tokens() -> None:
    tokens = [*range(100, 160)]
    for i in range(100, 130):
        tokens += [i, i + 1, 1000 + i]
    one = sequence([*tokens, 140, 141])
    drafting = measured(0.1)
    assert choose(drafting, [one], 100) == [[]]
    lookup = drafting.drafters[NGRAM]
    assert isinstance(lookup, NgramDrafter)
    assert lookup.lookup(one).match_length == 2


def test_choose_drafts_nothing_if_rows_cost_as_much_as_steps() -> None:
    assert choose(measured(1.0), [sequence(TEXT)], 100) == [[]]


def test_choose_drafts_less_for_each_the_fuller_the_batch() -> None:
    numbers = []
    for n in (1, 4, 16, 64):
        drafts = choose(measured(0.3), [sequence([*TEXT, *range(100, 110)]) for _ in range(n)], 400)
        numbers.append(sum(map(len, drafts)) / n)
        assert sum(map(len, drafts)) <= MAX_DRAFT
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[0], numbers[-1]) == (16, 0)


def test_choose_drafts_more_for_the_more_predictable_text() -> None:
    unsure = sequence([*range(100, 160), 120, 121])
    drafts = choose(measured(0.1), [unsure, sequence(TEXT)], 12)
    assert len(drafts[0]) < len(drafts[1])


def test_choose_never_drafts_beyond_the_end() -> None:
    one = sequence(TEXT, max_tokens=len(TEXT) + 2)  # the prompt is one token: three more come, one is sampled
    assert list(map(len, choose(measured(0.1), [one], 100))) == [2]


def test_choose_ignores_sequences_that_do_not_speculate() -> None:
    assert choose(measured(0.1), [sequence(TEXT, draft_max=0), sequence(TEXT)], 100)[0] == []


def test_choose_retries_drafts_that_seemed_too_expensive() -> None:
    drafting = measured(0.1)
    drafting.costs.row = 1.0  # say, another process disturbed the measurement
    one = sequence(TEXT)
    assert choose(drafting, [one], 100) == [[]]
    assert any(any(drafting.choose([one], 100)) for _ in range(100))


def test_credit_of_a_text_begins_with_its_first_draft_and_bounds_later_ones() -> None:
    credit, one = DraftCredit(), sequence(TEXT)
    assert credit.allows(one, start=TRIAL - 1, first=1.0, rest=1000.0)
    assert not credit.allows(one, start=TRIAL, first=1.0, rest=1000.0)
    assert not credit.allows(one, start=GAIN * 10 + 1, first=1.0, rest=10.0)
    one.draft_credit = TEXT_TRIAL
    assert not credit.allows(one, start=TEXT_TRIAL, first=1.0, rest=1000.0)
    credit.add(one, -TEXT_TRIAL)
    assert not credit.allows(one, start=0.0, first=0.1, rest=1000.0)
    assert credit.allows(sequence(TEXT), start=0.0, first=0.1, rest=1000.0)


def test_credit_returns_with_time_up_to_the_first_and_with_savings_beyond() -> None:
    credit, one = DraftCredit(), sequence(TEXT)
    one.draft_credit = TEXT_TRIAL
    credit.add(one, -5.0)
    for _ in range(200):
        credit.pass_time(one, 1.0)
    assert credit.steps == pytest.approx(TRIAL - 5 + 200 * LOSS)
    for _ in range(2000):
        credit.pass_time(one, 1.0)
    assert (credit.steps, one.draft_credit) == (TRIAL, TEXT_TRIAL)
    credit.add(one, 30.0)
    credit.pass_time(one, 1.0)
    assert (credit.steps, one.draft_credit) == (TRIAL + 30, TEXT_TRIAL + 30)
    credit.add(one, 1e9)
    assert credit.steps == one.draft_credit == MOST_STEPS
