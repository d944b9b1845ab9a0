"""Log-probabilities of prompts."""

from __future__ import annotations

import pytest

from server.input import prompt_scores
from server.worker.errors import TaskFailed
from support.api.http import CHAT, COMPLETIONS, client, error_of, events
from support.fakes.engine import FakeEngine, ids, tokenizer

pytestmark = pytest.mark.asyncio


async def test_echo_with_logprobs_begins_with_the_prompts_logprobs():
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
        logprobs = whole["choices"][index]["logprobs"]
        assert logprobs["tokens"] == ["<s>", "A", " cat", " there", " was"]
        assert logprobs["token_logprobs"] == [None] + [-0.5] * (len(prompt) + 1)
        assert logprobs["top_logprobs"][0] is None
        assert all(len(top) == 2 for top in logprobs["top_logprobs"][1:])
        text = whole["choices"][index]["text"]
        assert text == "A cat there was"
        assert [text[start:][:4] for start in logprobs["text_offset"]][-2:] == [" the", " was"]
        streamed = [c["choices"][0]["logprobs"] for c in stream if c["choices"][0]["index"] == index]
        for name in logprobs:
            assert [x for part in streamed if part for x in part[name]] == logprobs[name]
        assert len(only["choices"][index]["logprobs"]["tokens"]) == len(prompt)
    assert whole["choices"][2]["logprobs"]["token_logprobs"][0] is None


async def test_unscorable_prompt_is_refused_before_the_stream_begins():
    engine = FakeEngine()
    engine.work_error = TaskFailed("ConfigError", "is no text")
    body = {"prompt": "Once", "echo": True, "logprobs": 1, "stream": True}
    async with client(engine) as http:
        assert error_of(await http.post(COMPLETIONS, json=body), 400)["param"] == "prompt"
    assert engine.seen == []


async def test_prompt_logprobs_of_completions_are_in_each_choice_by_token_id():
    engine = FakeEngine()
    prompt = tokenizer().encode("A cat")
    body = {"prompt": ["A cat", "A dog"], "prompt_logprobs": 2, "n": 2, "max_tokens": 2}
    async with client(engine) as http:
        choices = (await http.post(COMPLETIONS, json=body)).json()["choices"]
        plain = (await http.post(COMPLETIONS, json={**body, "prompt_logprobs": 0})).json()["choices"]
        absent = (await http.post(COMPLETIONS, json={**body, "prompt_logprobs": None})).json()["choices"]
    assert len(engine.works) == 4  # one for each prompt, not for each choice
    assert [choice["logprobs"] for choice in choices] == [None] * 4
    first, *others = choices[0]["prompt_logprobs"]
    assert first is None
    assert [list(entry) for entry in others] == [[str(id), str(id + 1)] for id in prompt[1:]]
    cat = str(prompt[2])
    assert others[1][cat] == {"logprob": -0.5, "rank": 1, "decoded_token": " cat"}
    assert [entry["rank"] for entry in others[1].values()] == [1, 2]
    assert choices[1]["prompt_logprobs"] == choices[0]["prompt_logprobs"] != choices[2]["prompt_logprobs"]
    assert [list(entry) for entry in plain[0]["prompt_logprobs"][1:]] == [[str(id)] for id in prompt[1:]]
    assert all("prompt_logprobs" not in choice for choice in absent)


async def test_prompt_logprobs_alongside_echo_do_not_change_the_echoed_ones():
    engine = FakeEngine()
    body = {"prompt": "A cat", "echo": True, "logprobs": 1, "max_tokens": 1}
    async with client(engine) as http:
        alone = (await http.post(COMPLETIONS, json=body)).json()["choices"][0]
        both = (await http.post(COMPLETIONS, json={**body, "prompt_logprobs": 3})).json()["choices"][0]
        only = {**body, "logprobs": None, "prompt_logprobs": 3, "return_tokens": True}
        without = (await http.post(COMPLETIONS, json=only)).json()["choices"][0]
    assert [len(entry) for entry in both.pop("prompt_logprobs")[1:]] == [3, 3]
    assert both == alone
    assert (without["text"], without["logprobs"]) == (alone["text"], None)
    assert without["tokens"] == ids(" there")


async def test_prompt_logprobs_of_a_chat_cover_its_whole_prompt():
    engine = FakeEngine()
    body = {"messages": [{"role": "user", "content": "Hello"}], "prompt_logprobs": 1, "max_tokens": 2}
    async with client(engine) as http:
        whole = (await http.post(CHAT, json=body)).json()
    scored = whole["prompt_logprobs"]
    assert scored[0] is None
    assert [int(next(iter(entry))) for entry in scored[1:]] == list(engine.seen[0].prompt[1:])
    assert whole["usage"]["prompt_tokens"] == len(scored)


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("value", [-1, 21, 1.5, "3", True])
async def test_prompt_logprobs_out_of_bounds_are_refused(path, value):
    body = {"prompt": "A", "messages": [{"role": "user", "content": "A"}], "prompt_logprobs": value}
    async with client(FakeEngine()) as http:
        assert error_of(await http.post(path, json=body), 400)["param"] == "prompt_logprobs"


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
async def test_prompt_logprobs_other_than_0_with_a_stream_are_refused(path):
    body = {"prompt": "A", "messages": [{"role": "user", "content": "A"}], "stream": True}
    engine = FakeEngine()
    async with client(engine) as http:
        assert error_of(await http.post(path, json={**body, "prompt_logprobs": 1}), 400)["param"] == (
            "prompt_logprobs"
        )
        stream = events((await http.post(path, json={**body, "prompt_logprobs": 0, "max_tokens": 2})).text)
    assert engine.works == []
    assert any("prompt_logprobs has no effect" in text for text in stream[-1]["warnings"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt_logprobs": 20}, "prompt_logprobs"), ({"logprobs": 20, "echo": True}, "logprobs")],
)
async def test_more_scores_than_a_response_may_hold_are_refused(fields, param, monkeypatch):
    n_tokens = len(tokenizer().encode("A cat"))
    engine, body = FakeEngine(), {"prompt": ["A cat", "A cat"], "n": 3, "max_tokens": 1, **fields}
    async with client(engine) as http:
        monkeypatch.setattr(prompt_scores, "MAX_SCORES", 2 * 3 * 21 * n_tokens)
        assert (await http.post(COMPLETIONS, json=body)).status_code == 200
        monkeypatch.setattr(prompt_scores, "MAX_SCORES", 2 * 3 * 21 * n_tokens - 1)
        error = error_of(await http.post(COMPLETIONS, json=body), 400)
    assert error["param"] == param
    assert str(prompt_scores.MAX_SCORES) in error["message"]
