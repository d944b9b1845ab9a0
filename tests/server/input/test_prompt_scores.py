"""Log-probabilities of echoed prompts."""

from __future__ import annotations

import pytest

from server.worker.errors import TaskFailed
from support.api.http import COMPLETIONS, client, error_of, events
from support.fakes.engine import FakeEngine, ids, tokenizer

pytestmark = pytest.mark.asyncio


async def test_echo_with_logprobs_begins_with_those_of_the_prompt():
    engine = FakeEngine()
    prompt = tokenizer().encode("A cat")
    body = {"prompt": ["A cat", ids("x")[:1]], "echo": True, "logprobs": 2, "max_tokens": 2, "n": 2}
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
        only = (await http.post(COMPLETIONS, json={**body, "max_tokens": 0})).json()
    assert [work.tokens for work in engine.works[:1]] == [prompt]  # one token has nothing to score
    assert len(engine.works) == 3
    for index in (0, 1):
        found = whole["choices"][index]["logprobs"]
        assert found["tokens"] == ["<s>", "A", " cat", " there", " was"]
        assert found["token_logprobs"] == [None] + [-0.5] * (len(prompt) + 1)
        assert found["top_logprobs"][0] is None
        assert all(len(top) == 2 for top in found["top_logprobs"][1:])
        text = whole["choices"][index]["text"]
        assert text == "A cat there was"
        assert [text[start:][:4] for start in found["text_offset"]][-2:] == [" the", " was"]
        streamed = [c["choices"][0]["logprobs"] for c in stream if c["choices"][0]["index"] == index]
        for name in found:
            assert [x for part in streamed if part for x in part[name]] == found[name]
        assert len(only["choices"][index]["logprobs"]["tokens"]) == len(prompt)
    assert whole["choices"][2]["logprobs"]["token_logprobs"][0] is None


async def test_a_prompt_that_cannot_be_scored_is_refused_before_the_stream_begins():
    engine = FakeEngine()
    engine.work_error = TaskFailed("ConfigError", "is no text")
    body = {"prompt": "Once", "echo": True, "logprobs": 1, "stream": True}
    async with client(engine) as http:
        assert error_of(await http.post(COMPLETIONS, json=body), 400)["param"] == "prompt"
    assert engine.seen == []
