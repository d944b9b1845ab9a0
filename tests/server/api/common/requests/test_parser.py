"""Typed reads of a request's objects, and fields that are unknown or have no effect: each is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from server.api.common.requests.parser import (
    Fields,
    check_fields,
    json_text,
    no_media,
    objects,
    warn_of_unknown,
)
from server.api.common.schema import Schema
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from support.api.http import COMPLETIONS, client, events
from support.fakes.engine import make_app


@pytest.fixture
def context() -> RequestContext:
    return RequestContext(make_app().state.ggserve, AccessRecord("id"))


READS: list[tuple[Callable[[Fields], Any], Any, str, str]] = [
    (lambda f: f.text("x"), None, "missing_field", "is required"),
    (lambda f: f.text("x"), 5, "invalid_value", "must be a string"),
    (
        lambda f: f.one_of("x", ("a", "b")),
        "c" * 99,
        "invalid_value",
        f"must be one of a, b, not '{'c' * 64}'",
    ),
    (lambda f: f.one_of("x", ("a", "b")), ["a"], "invalid_value", "must be one of a, b"),
    (lambda f: f.one_of("x", ("a", "b")), None, "missing_field", "is required"),
    (lambda f: f.texts("x"), None, "missing_field", "is required"),
    (lambda f: f.texts("x"), "a", "invalid_value", "must be a list of strings, at least one"),
    (lambda f: f.texts("x"), [], "invalid_value", "must be a list of strings, at least one"),
    (lambda f: f.texts("x"), ["a", 1], "invalid_value", "must be a list of strings, at least one"),
    (lambda f: f.flag("x"), 1, "invalid_value", "must be true or false"),
    (lambda f: f.count("x", 1), None, "missing_field", "is required"),
    (lambda f: f.count("x", 1), 0, "invalid_value", "must be an integer from 1 to 2147483647"),
    (lambda f: f.count("x", 1), True, "invalid_value", "must be an integer"),
    (lambda f: f.count("x", 1), 1.0, "invalid_value", "must be an integer"),
    (lambda f: f.count("x", 1), 2**31, "invalid_value", "must be an integer"),
    (lambda f: f.object("x"), None, "missing_field", "is required"),
    (lambda f: f.object("x"), [], "invalid_value", "must be an object"),
    (lambda f: list(f.objects("x")), {}, "invalid_value", "must be a list"),
]


@pytest.mark.parametrize(("read", "value", "code", "message"), READS)
def test_read_of_another_type_names_the_field(
    read: Callable[[Fields], Any], value: Any, code: str, message: str, context: RequestContext
) -> None:
    with pytest.raises(ApiError) as raised:
        read(Fields({"x": value}, "input[3]", context))
    error = raised.value
    assert (error.status_code, error.param, error.code) == (400, "input[3].x", code)
    assert error.message.startswith(f"input[3].x: {message}")


def test_read_of_absent_and_null_fields_gives_the_default(context: RequestContext) -> None:
    for value in ({}, {"x": None}):
        fields = Fields(value, "a", context)
        assert fields.text_or("x", "default") == "default"
        assert fields.one_of("x", ("b",), "b") == "b"
        assert fields.flag("x") is False
        assert list(fields.objects("x")) == []


def test_objects_name_the_item_that_is_not_an_object(context: RequestContext) -> None:
    with pytest.raises(ApiError, match=r"a\[1\]: must be an object") as raised:
        list(objects([{}, 5], "a", context))
    assert raised.value.param == "a[1]"


def test_unknown_fields_are_warned_of_only_if_they_have_a_value(context: RequestContext) -> None:
    fields = Fields({"known": 1, "odd": 2, "idle": 3, "null": None, "y" * 99: 4}, "a", context)
    fields.only(frozenset({"known"}), frozenset({"idle"}))
    assert context.warnings == ["a.odd has no effect", f"a.{'y' * 64} has no effect"]


def test_json_text_of_unserializable_value_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ApiError, match="x: is nested too deeply"):
        json_text(deep, "x")
    assert json_text({"é": 1}, "x") == '{"é": 1}'


@pytest.mark.parametrize(
    ("kind", "words"),
    [("image_url", "image input"), ("input_audio", "audio input"), ("odd", "a part of type 'odd'")],
)
def test_no_media_names_the_kind(kind: str, words: str) -> None:
    error = no_media("a", kind)
    assert (error.code, error.message) == (
        "unsupported_value",
        f"a: {words} is not supported by this model; send text",
    )


@pytest.mark.anyio
async def test_unknown_and_ineffective_fields_are_named() -> None:
    body = {
        "prompt": "Once",
        "user": "me",
        "topp": 1,
        "metadata": {},
        "store": False,
        "suffix": "",
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["", "zz"],
        "stream_options": {"include_usage": True},
        "max_tokens": 100_000,
    }
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
        clean = (await http.post(COMPLETIONS, json={"prompt": "Once"})).json()
    warned = {warning.split()[0].rstrip(":") for warning in whole["warnings"]}
    assert warned == {"user", "topp", "top_p", "stop", "stream_options", "max_tokens"}
    assert {w.split()[0].rstrip(":") for w in stream[-1]["warnings"]} == warned - {"stream_options"}
    assert "warnings" not in clean


def test_refused_field_at_a_harmless_value_passes(context: RequestContext) -> None:
    class Body(Schema):
        pass

    check_fields(Body.model_validate({"n": 1, "m": None}), context, {"n": (1,), "m": ()})
    assert context.warnings == []
    with pytest.raises(ApiError, match="n: is not supported by this server"):
        check_fields(Body.model_validate({"n": 2}), context, {"n": (1,)})


def test_unknown_fields_that_change_the_answer_are_refused(context: RequestContext) -> None:
    warn_of_unknown({"a": None, "b": "", "quiet": 1}, "m", context, refused=("a", "b"), silent=("quiet",))
    assert context.warnings == []
    with pytest.raises(ApiError, match=r"m\.function_call: is not supported; send tool_calls"):
        warn_of_unknown({"function_call": {}}, "m", context, refused=("function_call",))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["batch_size", "n_batch"])
async def test_warnings_name_a_field_as_the_request_does(name: str) -> None:
    async with client() as http:
        body = {"prompt": "Once", "max_tokens": 1, name: 100_000}
        (warning,) = (await http.post(COMPLETIONS, json=body)).json()["warnings"]
    assert warning.startswith(f"{name}: ")
