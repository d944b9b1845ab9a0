"""What all requests of one application share."""

from __future__ import annotations

from support.fakes.engine import FakeEngine, make_app


def test_start_is_reported_in_utc() -> None:
    state = make_app().state.ggserve
    state.started = 86_399.9
    assert state.started_at == "1970-01-01T23:59:59Z"


def test_aliases_match_those_of_the_options() -> None:
    assert make_app().state.ggserve.aliases == {}
    engines = {name: FakeEngine(name=name) for name in ("a", "b")}
    settings = {"model": ["a=x.gguf", "b=y.gguf"], "alias": ["first", "b=second"]}
    assert make_app(engines, **settings).state.ggserve.aliases == {"first": "a", "second": "b"}
