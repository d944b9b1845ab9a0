"""What all requests of one application share."""

from __future__ import annotations

from typing import Any

import pytest

from server.config.settings import Settings
from server.generation.request_context import AccessRecord, RequestContext
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


def test_defaults_computed_from_old_options_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_app(default=["top_k=1"]).state.ggserve
    context = RequestContext(state, AccessRecord("id"))
    context.select_engine(None)
    parse = Settings.sampling_defaults

    def reload_meanwhile(settings: Settings) -> dict[str, Any]:
        values = parse(settings)
        if settings.default == ["top_k=1"]:
            state.reload({"default": ["top_k=2"]})
        return values

    monkeypatch.setattr(Settings, "sampling_defaults", reload_meanwhile)
    assert context.default_sampling["top_k"] == 1
    assert context.default_sampling["top_k"] == 2
    assert context.default_sampling is context.default_sampling
