"""Fields that are unknown or have no effect are named in the response."""

from __future__ import annotations

import pytest

from server.api.common.requests.body_fields import check_fields, warn_of_unknown
from server.api.common.schema import Schema
from server.errors import ApiError
from server.generation.request_context import AccessRecord, RequestContext
from support.api.http import COMPLETIONS, client, events
from support.fakes.engine import make_app

pytestmark = pytest.mark.asyncio


async def test_unknown_and_idle_fields_are_named():
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


async def test_refused_field_at_a_harmless_value_passes():
    class Body(Schema):
        pass

    context = RequestContext(make_app().state.ggserve, AccessRecord("id"))
    check_fields(Body.model_validate({"n": 1, "m": None}), context, {"n": (1,), "m": ()})
    assert context.warnings == []
    with pytest.raises(ApiError, match="n: is not supported by this server"):
        check_fields(Body.model_validate({"n": 2}), context, {"n": (1,)})


async def test_unknown_fields_that_change_the_answer_are_refused():
    context = RequestContext(make_app().state.ggserve, AccessRecord("id"))
    warn_of_unknown({"a": None, "b": "", "quiet": 1}, "m", context, refused=("a", "b"), silent=("quiet",))
    assert context.warnings == []
    with pytest.raises(ApiError, match=r"m\.function_call: is not supported; send tool_calls"):
        warn_of_unknown({"function_call": {}}, "m", context, refused=("function_call",))
