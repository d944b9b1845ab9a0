"""What a request carries: the engine of its model, and warnings within one bound."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import ApiError, UnknownModel
from server.generation.request_context import MAX_WARNINGS, AccessRecord, RequestContext
from support.fakes.engine import FakeEngine, make_app


def context(*engines: FakeEngine, **settings) -> RequestContext:
    app = make_app({engine.name: engine for engine in engines}, **settings)
    return RequestContext(app.state.ggserve, AccessRecord("id"))


def test_warnings_are_unique_and_limited_in_number() -> None:
    request_context = context(FakeEngine())
    assert request_context.with_warnings({"a": 1}) == {"a": 1}
    for i in range(2 * MAX_WARNINGS):
        request_context.warn(f"field{i} has no effect")
        request_context.warn("field0 has no effect")
    assert request_context.warnings[:2] == ["field0 has no effect", "field1 has no effect"]
    assert request_context.warnings[MAX_WARNINGS:] == ["further warnings are omitted"]
    assert request_context.with_warnings({"a": 1}) == {"a": 1, "warnings": request_context.warnings}


def test_the_only_model_needs_no_name() -> None:
    engine = FakeEngine()
    request_context = context(engine)
    assert request_context.select_engine(None) is engine
    assert request_context.engine is engine


def test_one_of_two_models_needs_its_name() -> None:
    small, large = FakeEngine(name="small"), FakeEngine(name="large")
    request_context = context(small, large)
    with pytest.raises(ApiError, match="served are 'small', 'large'") as raised:
        request_context.select_engine(None)
    assert (raised.value.status_code, raised.value.code) == (400, "missing_field")
    with pytest.raises(ApiError) as raised:
        request_context.select_engine("other")
    assert (raised.value.status_code, raised.value.code) == (404, "model_not_found")
    assert request_context.select_engine("large") is large
    assert context(small, large, any_model=True).select_engine("other") is small


@pytest.mark.parametrize(
    ("state", "code"),
    [("loading", "model_loading"), ("failed", "engine_failed"), ("stopped", "shutting_down")],
)
def test_engine_that_takes_no_requests_is_a_503(state: str, code: str) -> None:
    engine = FakeEngine()
    engine.state = state
    request_context = context(engine)
    with pytest.raises(ApiError) as raised:
        request_context.select_engine(None)
    assert (raised.value.status_code, raised.value.code) == (503, code)
    assert request_context.find_model(None).engine is engine


@pytest.mark.asyncio
async def test_stop_iteration_in_a_thread_is_raised_as_an_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(context(FakeEngine()).in_thread(next, iter(())), 10)


@pytest.mark.parametrize(
    "name", ["small", "small:latest", "other", "other:latest", "tagged:latest", "tagged"]
)
def test_select_engine_ignores_the_tag_latest(name: str) -> None:
    small, tagged = FakeEngine(name="small"), FakeEngine(name="tagged:latest")
    request_context = context(small, tagged)
    request_context.state.aliases = {"other": "small"}
    assert request_context.select_engine(name) is (tagged if name.startswith("tagged") else small)


@pytest.mark.parametrize("name", ["small:7b", ":latest", "", "small:latest:latest"])
def test_select_engine_refuses_other_tags(name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        context(FakeEngine(name="small")).select_engine(name)
    assert caught.value.model == name


@pytest.mark.parametrize(("isolation", "apart"), [("none", False), ("key", True)])
def test_isolation_keeps_the_prefixes_of_clients_apart(isolation: str, apart: bool) -> None:
    app = make_app(FakeEngine(), cache_isolation=isolation, api_key=["a", "b"])
    contexts = [
        RequestContext(app.state.ggserve, AccessRecord("id"), client)
        for client in app.state.ggserve.keys.clients
    ]
    for requested in ("", "ours"):
        first, second = (context.cache_salt(requested) for context in contexts)
        assert (first != second) is apart
        assert first.endswith(requested)
    assert contexts[0].cache_salt("ours") != contexts[0].cache_salt()


def test_without_keys_isolation_changes_nothing() -> None:
    assert context(FakeEngine(), cache_isolation="key").cache_salt("ours") == "ours"
