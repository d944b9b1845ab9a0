"""Requests that schemathesis makes of /openapi.json, sound ones and others: each is answered as described.

Sound ones get what the description promises; others are refused. GGSERVE_FUZZ_CASES=200 looks further.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core import NOT_SET

from support.api.routes import POSTS, Ask, Route, asking, document, refusal, routes

SCHEMA = schemathesis.openapi.from_dict(document())
N_CASES = int(os.environ.get("GGSERVE_FUZZ_CASES", "3"))  # of each kind, for each route
SOUND, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asking() as asker:
        yield asker


def send(case: Case, ask: Ask) -> httpx.Response:
    """The request of a case, its body as JSON."""
    body: dict[str, Any] = {}
    if case.body is not NOT_SET:
        content = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
        body = {"content": content, "headers": {"content-type": "application/json"}}
    return ask.request(case.method, case.formatted_path, params=dict(case.query or {}), **body)


def check(case: Case, response: httpx.Response) -> None:
    if response.status_code == 501:  # a route that is there to say so
        assert refusal(response, case.path, 501)["code"] == "not_supported"
    elif response.status_code == 503:  # a millisecond is not much
        assert refusal(response, case.path, 503)["code"] == "timeout"
    elif response.status_code >= 400:
        refusal(response, case.path, 400, 404, 413)
    elif response.headers["content-type"].startswith("text/event-stream"):
        for data in response.content.splitlines():  # of bytes: text has more ends of lines than SSE
            kind, _, value = data.decode().partition(": ")
            assert kind in ("", "event", "data"), data
            if kind == "data" and value != "[DONE]":
                json.loads(value)
    elif response.headers["content-type"] == "application/x-ndjson":
        assert response.content.endswith(b"\n")
        assert [json.loads(line)["done"] for line in response.content.splitlines()][-1] is True
    else:
        assert response.status_code == 200
        if not (isinstance(case.body, dict) and case.body.get("response_fields")):
            case.validate_response(response)


@pytest.mark.parametrize(
    ("route", "mode"),
    [*((route, SOUND) for route in routes()), *((route, WRONG) for route in POSTS)],
    ids=lambda value: value.value if isinstance(value, GenerationMode) else f"{value.method} {value.path}",
)
def test_generated_requests_get_responses_as_described(route: Route, mode: GenerationMode, ask: Ask) -> None:
    operation = SCHEMA[route.path][route.method]

    @settings(max_examples=N_CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Case) -> None:
        check(case, send(case, ask))

    answered()
