"""POST /v1/responses and its count of tokens."""

from __future__ import annotations

import asyncio

import pytest

from support.api.http import Live, client, error_of
from support.api.responses import RESPONSES, TOOL
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


async def test_overlong_input_is_refused():
    async with client(FakeEngine(n_ctx=16)) as http:
        for path in (RESPONSES, "/v1/responses/input_tokens"):
            error = error_of(await http.post(path, json={"input": "word " * 40}), 400)
            assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


async def test_input_tokens_match_the_prompt():
    engine = FakeEngine()
    async with client(engine) as http:
        await http.post(RESPONSES, json={"input": "A cat", "instructions": "Be brief", "tools": [TOOL]})
        body = {"input": "A cat", "instructions": "Be brief", "tools": [TOOL]}
        counted = (await http.post("/v1/responses/input_tokens", json=body)).json()
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] == len(engine.seen[0].prompt)
    assert len(engine.seen) == 1


async def test_client_disconnect_frees_the_engine():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 1000
    live = Live(make_app(engine), RESPONSES, {"input": "x", "stream": True})
    await live.until("output_text.delta")
    live.leave()
    await asyncio.wait_for(live.task, 5)
    assert engine.left == [engine.seen[0].id]
