"""Nothing that a client asks for is dropped without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from support.api.routes import (
    GENERATING,
    POSTS,
    Ask,
    Field,
    Route,
    able_engine,
    asking,
    bounds,
    branches,
    example,
    placed,
    refusal,
)
from support.quick import every

NOTHING = ("", [], {}, None)  # asks for nothing
TOO_LONG = "a cat " * 4096  # for the context of the engine below
# What a field can only do together with others: these, at their examples, or at this.
WITH: dict[str, dict[str, Any]] = {
    "parse_special": {"content": "a</s>b"},
    "top_logprobs": {"logprobs": True},
    "parallel_tool_calls": {"tools": ..., "tool_choice": "required"},
    "tool_choice": {"tools": ...},
    "truncate": {"input": TOO_LONG, "prompt": TOO_LONG, "documents": [TOO_LONG]},
}
# They say what an answer may be, and these routes make none: they take what the generating ones take.
FOR_ANSWERS = {"tool_choice", "parallel_tool_calls", "reasoning_format"}
# The first holds "in any case", says its description; the other changes which engine serves.
SAID = {"tools[0].function.strict", "reload"}
# Shows everything that a template is given.
TEMPLATE = """{%- for message in messages %}{{ message.role }} {{ message | tojson }}
{% endfor %}{{ tools | tojson if tools }}{{ "Do not think." if enable_thinking is false }}
{{- reasoning_effort }}
{%- if add_generation_prompt %}assistant {% endif %}{% if false %}<think></think>{% endif %}"""
UNSTEADY = re.compile(
    r'"(created\w*|completed_at|\w+_ms|\w+_per_\w+|\w+_duration)":[-+.e\d]+|"created_at":"[^"]+"'
    r"|[0-9a-f]{24,}|[0-9a-f-]{36}"
)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    path = tmp_path_factory.mktemp("template") / "all.jinja"
    path.write_text(TEMPLATE)
    engine = able_engine("<think>hm</think> a zebra, a dog", eos=False)
    with asking(engine, seed=7, chat_template=path, context_size=4096) as asker:
        engine.n_ctx = 4096
        yield asker


def warnings_of(response: httpx.Response) -> list[str]:
    """A list that is no object tells them in a header."""
    body = response.json()
    if isinstance(body, list):
        return response.headers.get("x-warnings", "").split("; ")
    return body.get("warnings", [])


@pytest.mark.parametrize("route", POSTS, ids=str)
def test_unknown_field_gets_a_warning(route: Route, ask: Ask) -> None:
    whole = ask(route, {**route.body(), "no_such_field": 1, "nor_this": "x"})
    assert whole.status_code == 200, whole.text
    for name in ("no_such_field", "nor_this"):
        assert f"{name} has no effect" in warnings_of(whole)
    if route.generates:
        stream = ask(route, {**route.body(), "no_such_field": 1, "stream": True})
        assert "no_such_field has no effect" in stream.text


@pytest.mark.parametrize("route", every(3, POSTS), ids=str)
def test_many_unknown_fields_give_a_bounded_list_of_warnings(route: Route, ask: Ask) -> None:
    fields = {f"f{i}" * 100: 1 for i in range(10_000)}
    warnings = warnings_of(ask(route, {**route.body(), **fields}))
    assert 0 < len(warnings) < 50
    assert max(map(len, warnings)) < 200


def altered(value: Any) -> list[Any]:
    """Values of the same kind that are not the same."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1]
    if isinstance(value, str):
        return [value + "s", "zebra"]
    if isinstance(value, list):
        return [[*value, *value], *([other, *value[1:]] for other in altered(value[0]))] if value else []
    if isinstance(value, dict):
        return [{**value, key: other} for key in value for other in altered(value[key])]
    return []


def others(field: Field) -> list[Any]:
    """Values that the field takes, of which some ask for something else than its default."""
    actual = [field.example, *altered(field.example)]
    allowed: list[Any] = []
    for branch in branches(field.schema):
        allowed += branch.get("enum", [])
        if branch.get("type") == "boolean":
            actual += [True, False]
    low, high = bounds(field.schema)
    if low is not None and high is not None:
        actual += [low, high, (low + high) / 2 if isinstance(field.example, float) else low + 1]
        actual = [
            v
            for v in actual
            if isinstance(v, str | bool) or not isinstance(v, int | float) or low <= v <= high
        ]
    if allowed:
        actual = allowed + [value for value in actual if not isinstance(value, str)]
    return [value for value in actual if value not in NOTHING]


def outcome(ask: Ask, route: Route, body: dict[str, Any]) -> str:
    """What an engine was asked and what was answered: all that the request decides."""
    ask.forget()
    response = ask(route, body)
    if response.status_code != 200:
        return str(refusal(response, route, 400, 404))
    requests = [msgspec.structs.asdict(request) for request in ask.engine.seen]
    for request in requests:
        request["deadline_ms"] = request["deadline_ms"] is not None
    answer = response.text, response.headers.get("x-warnings"), response.headers["content-type"]
    return UNSTEADY.sub("", f"{answer} {requests} {ask.engine.works} {ask.commands}")


# Those that count for a request of another route take what that one takes.
SAME = [route.schema["title"] for route in GENERATING]
OTHERS = [route for route in POSTS if route.generates or route.schema["title"] not in SAME]


@pytest.mark.parametrize("route", every(10, OTHERS), ids=str)
def test_documented_field_changes_something_or_is_reported(route: Route, ask: Ask) -> None:
    """Another value changes what the engine is asked, or the answer, or it is refused or warned about."""
    assert outcome(ask, route, route.body()) == outcome(ask, route, route.body()), "not steady"
    idle: list[str] = []
    refused: list[str] = []  # and what is in them
    for field in route.all_fields():
        if field.name.startswith(tuple(refused)):
            continue
        extra = {
            name: example(route.fields[name]) if value is ... else value
            for name, value in WITH.get(field.top, {}).items()
            if name in route.fields
        }
        before = {**route.body(), **extra}
        if len(field.path) > 1:
            before[field.top] = placed(field.around, field.path[1:-1], _without(field))
        values = others(field)

        def changes(**more: Any) -> bool:
            """Whether any of the values does."""
            first = outcome(ask, route, {**before, **more})  # noqa: B023
            requested = ({**extra, **field.body(value), **more} for value in values)  # noqa: B023
            return any(outcome(ask, route, body) != first for body in requested)

        if not (changes() or (route.generates and changes(stream=True))):
            idle.append(field.name)
        base = outcome(ask, route, {**extra, **field.body(field.example)})
        if f"{field.name} has no effect" in base or not base.startswith("("):
            refused += [f"{field.name}.", f"{field.name}["]
    assert not set(idle) - SAID - (set() if route.generates else FOR_ANSWERS)


def _without(field: Field) -> Any:
    """What a field is in, without it where it may be absent."""
    value = field.around
    for part in field.path[1:-1]:
        value = value[part]
    last = field.path[-1]
    return {k: v for k, v in value.items() if k != last} if isinstance(last, str) else value
