"""Samplers that a request leaves out."""

from __future__ import annotations

import pytest

from support.api.llama_server import ask
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio


async def test_samplers_that_are_left_out_do_nothing():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "samplers": ["top_k", "infill"], "min_p": 0.2}, engine)
    params = engine.seen[0].params
    assert (params.top_k, params.top_p, params.min_p, params.temperature) == (40, 1, 0, 1)
    assert body["warnings"] == [
        "samplers: 'infill' has no effect, this server has no such step",
        "min_p has no effect: samplers leaves its step out",
    ]
    assert "warnings" not in await ask({"prompt": "a", "samplers": "edskypmxt"})
    body = await ask({"prompt": "a", "samplers": ["temperature", "top_k"]})
    assert body["warnings"][0].startswith("samplers: their order has no effect")
