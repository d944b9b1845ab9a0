"""POST /v1/completions, whole and streamed."""

from __future__ import annotations

import pytest

from support.api.http import COMPLETIONS, client, events, text_of
from support.fakes.engine import FakeEngine

pytestmark = pytest.mark.asyncio


async def test_whole_and_streamed_text_are_the_same():
    engine = FakeEngine("Zoë ate 🍕 — twice.\n")
    async with client(engine) as http:
        whole = await http.post(COMPLETIONS, json={"prompt": "Once"})
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})
    assert whole.status_code == stream.status_code == 200
    body = whole.json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["model"] == "stories"
    assert body["choices"] == [
        {"index": 0, "text": "Zoë ate 🍕 — twice.\n", "logprobs": None, "finish_reason": "stop"}
    ]
    assert stream.headers["content-type"].startswith("text/event-stream")
    chunks = events(stream.text)
    assert text_of(chunks) == "Zoë ate 🍕 — twice.\n"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert "�" not in stream.text
    assert all("usage" not in chunk for chunk in chunks)
