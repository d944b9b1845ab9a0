"""Numbers of many digits, from a request to what the model sees and from what it writes to the response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.types import Constraint
from support.api.chat import QWEN, answering, app
from support.api.http import CHAT, COMPLETIONS, client, error_of, user
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio
BIG, LONG = "1234567890123456789012345678901", "0.1234567890123456789012345"
OBJECT = f'{{"id": {BIG}, "price": {LONG}}}'
JSON = {"content-type": "application/json"}
SCHEMA = f'{{"type": "object", "properties": {{"id": {{"enum": [{BIG}, 1]}}, "x": {{"minimum": {LONG}}}}}}}'
TOOL = f'{{"name": "f", "description": "d", "parameters": {SCHEMA}}}'


async def post(http: Any, route: str, body: str) -> Any:
    response = await http.post(route, content=body, headers=JSON)
    assert response.status_code == 200, response.text
    return response


async def test_long_numbers_in_schemas_keep_their_digits() -> None:
    engine = FakeEngine()
    format = f'{{"type": "json_schema", "json_schema": {{"schema": {SCHEMA}}}}}'
    async with client(engine) as http:
        await post(http, COMPLETIONS, f'{{"prompt": "x", "json_schema": {SCHEMA}}}')
        await post(http, COMPLETIONS, f'{{"prompt": "x", "response_format": {format}}}')
        format = f'{{"type": "json_schema", "name": "n", "schema": {SCHEMA}}}'
        echoed = await post(http, "/v1/responses", f'{{"input": "x", "text": {{"format": {format}}}}}')
    for request in engine.seen:
        assert isinstance(request.constraint, Constraint)
        assert BIG in request.constraint.text
        assert LONG in request.constraint.text
    assert BIG in echoed.text
    assert LONG in echoed.text


async def test_long_numbers_in_tools_and_calls_keep_their_digits() -> None:
    call = (
        f'{{"id": "a", "type": "function", "function": {{"name": "f", "arguments": {json.dumps(OBJECT)}}}}}'
    )
    as_object = call.replace(json.dumps(OBJECT), OBJECT)
    tools = f'[{{"type": "function", "function": {TOOL}}}]'
    for written in (call, as_object):
        talk = f'[{{"role": "user", "content": "x"}}, {{"role": "assistant", "tool_calls": [{written}]}}, '
        talk += '{"role": "tool", "tool_call_id": "a", "content": "y"}]'
        for application in (app(FakeEngine(), QWEN), app(FakeEngine(), None)):
            async with client(application) as http:
                prompt = (
                    await post(http, "/apply-template", f'{{"messages": {talk}, "tools": {tools}}}')
                ).text
            assert prompt.count(BIG) == 2
            assert prompt.count(LONG) == 2


async def test_long_numbers_in_generated_calls_keep_their_digits() -> None:
    reply = f'<tool_call>\n{{"name": "f", "arguments": {OBJECT}}}\n</tool_call>'
    body = f'{{"model": "stories", "max_tokens": 400, "messages": {json.dumps(user("x"))}, '
    async with client(app(answering(reply))) as http:
        openai = await post(http, CHAT, body + f'"tools": [{{"type": "function", "function": {TOOL}}}]}}')
        tool = TOOL.replace('"parameters"', '"input_schema"')
        anthropic = await post(http, "/v1/messages", body + f'"tools": [{tool}]}}')
        responses = f'{{"input": "x", "tools": [{{"type": "function", {TOOL[1:]}]}}'
        for response in (openai, anthropic, await post(http, "/v1/responses", responses)):
            assert BIG in response.text
            assert LONG in response.text


async def test_long_sampling_numbers_keep_their_value_or_are_refused() -> None:
    engine = FakeEngine()
    async with client(engine) as http:
        body = (
            f'{{"prompt": "x", "seed": {2**64 - 1}, "logit_bias": {{"300": {LONG}}}, "temperature": {LONG}}}'
        )
        await post(http, COMPLETIONS, body)
        for odd in (f'"seed": {2**64}', f'"logit_bias": {{"{BIG}": 1}}', '"logit_bias": {"300.0": 1}'):
            error_of(await http.post(COMPLETIONS, content=f'{{"prompt": "x", {odd}}}', headers=JSON), 400)
        large = await http.post(COMPLETIONS, content='{"prompt": "x", "temperature": 1e400}', headers=JSON)
    (request,) = engine.seen
    assert request.params.seed == 2**64 - 1
    assert dict(request.params.logit_bias) == {300: float(LONG)}
    assert type(request.params.temperature) is float
    assert "out of range" in error_of(large, 400)["message"]
