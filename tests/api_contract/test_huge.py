"""Counts, lists and texts of absurd size: refused before they cost anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from server.errors import ApiError, from_validation
from support.api.routes import (
    GENERATING,
    POSTS,
    Ask,
    Field,
    Route,
    able_engine,
    asking,
    branches,
    kinds,
    refusal,
)
from support.quick import every

N_CTX = 512


class Counting:
    """A tokenizer that remembers the longest text that it was given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.longest = 0

    def encode(self, text: str, **options: Any) -> list[int]:
        self.longest = max(self.longest, len(text))
        tokens: list[int] = self.tokenizer.encode(text, **options)
        return tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    engine = able_engine(n_ctx=N_CTX)
    engine.tokenizer = Counting(engine.tokenizer)
    with asking(engine) as asker:
        yield asker


def huge(field: Field) -> list[Any]:
    """More than anyone needs, of each kind that the field takes."""
    collected: list[Any] = []
    for branch in branches(field.schema):
        kind = branch.get("type")
        if kind == "integer" or kind == "number":
            collected += [10**9, 2**31, -(10**9)]
        elif kind == "string" and "enum" not in branch:
            collected.append("a cat " * 20_000)
        elif kind == "array":
            items = field.example if isinstance(field.example, list) and field.example else ["x"]
            collected += [items[:1] * 10_000, [5] * 10_000]
        elif kind == "object":
            collected.append({str(i): 1 for i in range(10_000)})
    return collected


LONG = N_CTX * 64  # characters that can be as few tokens as a session holds


@pytest.mark.parametrize("route", every(3, GENERATING), ids=str)
def test_huge_value_is_refused_before_it_costs_anything(
    route: Route, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either refused by name, or taken for what it means; no text of that size is ever tokenised.

    A list is not validated to its end where every item is wrong.
    """

    def bounded(errors: Sequence[Any], body: Any) -> ApiError:
        assert len(errors) <= 5000
        return from_validation(errors, body)

    monkeypatch.setattr("server.errors.from_validation", bounded)
    counting = ask.engine.tokenizer
    for field in route.all_fields():
        for value in huge(field):
            ask.forget()
            counting.longest = 0
            response = ask(route, field.body(value))
            if response.status_code != 200:
                error = refusal(response, route, 400, 404, 413)
                about = f"{error['param']} {error['message']}"
                assert response.status_code == 413 or field.top in about or "tokens" in about
            assert counting.longest < LONG, field.name
            assert len(ask.engine.seen) <= 16
            assert all(len(request.prompt) < N_CTX for request in ask.engine.seen)
            assert len(response.content) < 100_000


COUNTS = {"n", "n_cmpl", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"}
COUNTS |= {"top_logprobs", "logprobs", "n_probs", "num_predict"}


def placements(route: Route, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A field's name and a body with its value, for the fields that the route has, or has in `options`."""
    inner = branches(route.fields.get("options", {}))[0].get("properties", {})
    assert set(values) & {*route.fields, *inner}
    for name, value in values.items():
        if name in route.fields:
            yield name, {**route.body(), name: value}
        if name in inner:
            yield f"options.{name}", {**route.body(), "options": {name: value}}


@pytest.mark.parametrize("route", every(3, GENERATING), ids=str)
def test_huge_count_is_refused(route: Route, ask: Ask) -> None:
    ask.forget()
    wrong: dict[str, Any] = dict.fromkeys(COUNTS, 2**31)
    wrong["logit_bias"] = {str(i): 1 for i in range(100_000)}
    wrong["stop"] = [str(i) for i in range(100_000)]
    wrong["stop_sequences"] = wrong["stop"]
    wrong["stop_token_ids"] = list(range(100_000))
    for name, body in placements(route, wrong):
        assert refusal(ask(route, body), route)["param"] == name
    assert ask.work == []


@pytest.mark.parametrize("route", GENERATING, ids=str)
@pytest.mark.parametrize("id", [2048, 2**31 - 1, 2**31, -1])
def test_token_id_outside_the_vocabulary_is_refused(id: int, route: Route, ask: Ask) -> None:
    ask.forget()
    wrong: dict[str, Any] = {"logit_bias": {str(id): 1}, "stop_token_ids": [id]}
    if "array" in (kinds(route.fields.get("logit_bias", {})) or ()):  # an object's keys may be texts there
        wrong["logit_bias"] = [[id, 1]]
    wrong |= {name: [5, id] for name in ("prompt", "context")}
    for name, body in placements(route, wrong):
        assert (refusal(ask(route, body), route)["param"] or "").split("[")[0] == name
    assert ask.work == []


def test_body_of_the_maximum_size_is_read() -> None:
    """The bound is on bytes; below it parsing alone is paid for."""
    body = b'{"x": "' + b"a" * 99_900 + b'"}'
    with asking(max_body_bytes=100_000) as ask:
        for route in POSTS:
            assert ask(route, content=body).status_code in (200, 400)
            refusal(ask(route, content=body + b" " * 100), route, 413)


def test_large_text_is_tokenized_and_too_many_ids_are_refused(ask: Ask) -> None:
    by_path = {route.path: route for route in POSTS}
    counted = ask(by_path["/tokenize"], {"content": "a cat " * 20_000})
    assert len(counted.json()["tokens"]) >= 20_000
    error = refusal(ask(by_path["/detokenize"], {"tokens": [1] * 1_000_000}), "/detokenize")
    assert error["param"] == "tokens"
