"""POST /v1/messages and its count of tokens: tokens of the prompt, clients that leave."""

from __future__ import annotations

import asyncio

import pytest

from support.api.anthropic import COUNT, MESSAGES, TOOL, refusal, request
from support.api.http import Live, client, user
from support.fakes.engine import FakeEngine, make_app

pytestmark = pytest.mark.asyncio


async def test_count_tokens_matches_the_prompt():
    engine = FakeEngine()
    body = {"messages": user("A cat"), "system": "Be brief", "tools": [TOOL]}
    async with client(engine) as http:
        await http.post(MESSAGES, json={**body, "max_tokens": 5})
        counted = (await http.post(COUNT, json=body)).json()
        refusal(await http.post(COUNT, json={"messages": [5]}), 400)
    assert counted["input_tokens"] == len(engine.seen[0].prompt)
    assert len(engine.seen) == 1


async def test_client_disconnect_frees_the_engine():
    engine = FakeEngine(delay_s=0.01, eos=False)
    engine.reply = [11] * 1000
    live = Live(make_app(engine), MESSAGES, request(stream=True, max_tokens=500))
    await live.until("content_block_delta")
    live.leave()
    await asyncio.wait_for(live.task, 5)
    assert engine.left == [engine.seen[0].id]
