"""Responses of JSON."""

from __future__ import annotations

import json

from server.generation.request_context import AccessRecord, RequestContext
from server.http.json_reply import json_reply
from support.fakes.engine import make_app


def test_reply_has_the_warnings_of_its_request() -> None:
    context = RequestContext(make_app().state.ggserve, AccessRecord("id"))
    assert json.loads(json_reply({"a": 1}, context).body) == {"a": 1}
    context.warn("x has no effect")
    reply = json_reply({"a": 1}, context)
    assert json.loads(reply.body) == {"a": 1, "warnings": ["x has no effect"]}
    assert reply.media_type == "application/json"
