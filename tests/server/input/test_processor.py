"""From a request to a job: sequences, sampling parameters, time limits."""

from __future__ import annotations

import time

import pytest

from support.api.http import COMPLETIONS, client, events, text_of
from support.fakes.engine import FakeEngine, ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio


async def test_several_prompts_and_choices_are_numbered_and_summed():
    def reply(request):
        return ids(f" {request.params.seed} {len(request.prompt)}")

    engine = FakeEngine(reply)
    body = {"prompt": ["One", [5, 6, 7, 8]], "n": 2, "seed": 40}
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = await http.post(
            COMPLETIONS, json={**body, "stream": True, "stream_options": {"include_usage": True}}
        )
    texts = [choice["text"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    one = len(tokenizer().encode("One"))
    assert texts == [f" 40 {one}", f" 41 {one}", " 40 4", " 41 4"]
    chunks = events(stream.text)
    assert [text_of(chunks, i) for i in range(4)] == texts
    finished = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(finished) == [0, 1, 2, 3]
    made = sum(len(ids(text)) + 1 for text in texts)  # and one end of text each
    for usage in (whole["usage"], chunks[-1]["usage"]):
        assert usage["prompt_tokens"] == one + 4
        assert usage["completion_tokens"] == made
        assert usage["total_tokens"] == one + 4 + made
    assert len({request.id for request in engine.seen}) == 8


async def test_stop_token_ids_are_no_part_of_the_text():
    little = ids(" little")[0]
    async with client() as http:
        body = (
            await http.post(
                COMPLETIONS, json={"prompt": "Once", "stop_token_ids": [little], "return_tokens": True}
            )
        ).json()
    choice = body["choices"][0]
    assert choice["text"] == " there was a"
    assert choice["tokens"] == ids(" there was a")
    assert choice["finish_reason"] == "stop"


async def test_the_servers_own_time_limit_cannot_be_raised():
    engine = FakeEngine()
    async with client(make_app(engine, request_timeout_s=1.0)) as http:
        before = time.monotonic() * 1000
        await http.post(COMPLETIONS, json={"prompt": "Once", "timeout_ms": 60_000})
        await http.post(COMPLETIONS, json={"prompt": "Once"})
        after = time.monotonic() * 1000
    assert all(before + 1000 <= request.deadline_ms <= after + 1000 for request in engine.seen)
