"""Every field of every route with values that it does not take: refused by name, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from engine.sampling import parameters as sampling
from support.api.routes import POSTS, Ask, Field, Route, asking, bounds, constants, kind_of, kinds, refusal
from support.quick import every

WRONG = ["5", 5, -1.5, True, [], {}, None]
NUMBERS = [-(2**63), -1, 0, 10**30, -1e308, 1e308]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking() as asker:
        yield asker


def names(error: dict[str, Any], field: Field) -> bool:
    """Whether an error is about the field or a part of it."""
    return error["param"] in field.names or (error["param"] or "").startswith(field.name)


@pytest.mark.parametrize("route", every(6, POSTS), ids=str)
def test_value_of_a_wrong_type_is_refused_by_field_name(route: Route, ask: Ask) -> None:
    ask.forget()
    for field in route.all_fields():
        accepted = kinds(field.schema)
        for value in WRONG:
            is_number = accepted is not None and "number" in accepted and value == 5
            if accepted is not None and kind_of(value) not in accepted and not is_number:
                error = refusal(ask(route, field.body(value)), route)
                assert error["param"] in field.names, (field.name, value, error)
    assert ask.work == []


@pytest.mark.parametrize("route", every(6, POSTS), ids=str)
def test_number_at_its_limits_is_accepted_and_beyond_is_refused(route: Route, ask: Ask) -> None:
    """What is out of bounds is refused; what is not reaches the engine within the bounds of the engine."""
    ask.forget()
    for field in route.all_fields():
        accepted = kinds(field.schema) or set()
        if not accepted & {"integer", "number"}:
            continue
        low, high = bounds(field.schema)
        assert low is not None, f"{field}: a number without bounds"
        assert high is not None, f"{field}: a number without bounds"
        for value in {*NUMBERS, low, high, low - 1, high + 1}:
            if isinstance(value, float) and value.is_integer() and "number" not in accepted:
                value = int(value)
            response = ask(route, field.body(value))
            taken_alone = value in constants(field.schema)
            if not (low <= value <= high or taken_alone) or response.status_code != 200:
                assert names(refusal(response, route, 400, 503), field), (field.name, value, response.text)
    engine = ask.engine
    for request in engine.seen:
        params = msgspec.structs.replace(request.params, max_tokens=request.params.max_tokens or None)
        assert sampling.validate(params, engine.tokenizer.n_vocab, engine.n_ctx) == params
        assert 1 <= request.n_batch <= engine.max_batch_size
        assert len(request.prompt) < engine.n_ctx
