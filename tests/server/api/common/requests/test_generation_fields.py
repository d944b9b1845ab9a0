"""Fields that all generating routes share."""

from __future__ import annotations

from typing import Any

import pytest

from support.api.http import CHAT, COMPLETIONS, client, user
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio
CHAT_BODY = {"messages": user("A cat")}
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
LIMITS: list[tuple[str, str, dict[str, Any]]] = [
    (COMPLETIONS, "max_tokens", {"prompt": "Once"}),
    (CHAT, "max_tokens", CHAT_BODY),
    (CHAT, "max_completion_tokens", CHAT_BODY),
    (RESPONSES, "max_output_tokens", {"input": "A cat"}),
    (MESSAGES, "max_tokens", CHAT_BODY),
    ("/completion", "n_predict", {"prompt": "Once"}),
    ("/completion", "max_tokens", {"prompt": "Once"}),
    ("/infill", "n_predict", {"input_prefix": "Once", "input_suffix": "end"}),
]
# The APIs whose own servers take 0: only the prompt is computed.
PREFILLS = (COMPLETIONS, "/completion", "/infill")


@pytest.mark.parametrize(("route", "field", "body"), [row for row in LIMITS if row[0] != "/infill"])
@pytest.mark.parametrize("default", [(), ("max_tokens=3",)])
async def test_limit_of_minus_one_means_no_limit(route, field, body, default):
    """As LM Studio, KoboldCpp and clients of llama-server send it; also where the operator set a limit."""
    engine = FakeEngine()
    async with client(make_app(engine, default=list(default))) as http:
        for value in (-1, None):
            response = await http.post(route, json={**body, field: value})
            assert response.status_code == 200, response.text
            assert "warnings" not in response.json()
    assert engine.seen[0].params.max_tokens is None
    assert engine.seen[1].params.max_tokens == (3 if default else None)  # null is the same as absent


@pytest.mark.parametrize(("route", "field", "body"), LIMITS)
async def test_invalid_limits_are_refused_by_every_api(route, field, body):
    engine = FakeEngine()
    async with client(engine) as http:
        for value in (-2, -100, 2**31, 1.5, "-1", True):
            response = await http.post(route, json={**body, field: value})
            assert response.status_code == 400, value
            assert field in response.json()["error"]["message"]
        if route not in PREFILLS:
            message = error_message(await http.post(route, json={**body, field: 0}))
            assert message == f"{field}: must be at least 1, or -1 for no limit"
    assert engine.seen == []


async def test_anthropic_messages_require_max_tokens():
    async with client(FakeEngine()) as http:
        assert error_message(await http.post(MESSAGES, json=CHAT_BODY)) == "max_tokens: is required"


def error_message(response: Any) -> str:
    assert response.status_code == 400
    message: str = response.json()["error"]["message"]
    return message
