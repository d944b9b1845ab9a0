"""POST /completion: llama-server's own answer, whole and streamed."""

from __future__ import annotations

import math

import pytest

from support.api.http import client
from support.api.llama_server import PATH, ask, stream
from support.fakes.engine import TEXT, FakeEngine, ids, tokenizer

pytestmark = pytest.mark.asyncio
FIRST = {"index", "content", "tokens", "stop", "id_slot", "tokens_predicted", "tokens_evaluated"}
LAST = FIRST | {
    "model",
    "generation_settings",
    "prompt",
    "has_new_line",
    "truncated",
    "stop_type",
    "stopping_word",
    "tokens_cached",
    "timings",
}


@pytest.mark.parametrize("path", [PATH, "/completions"])
async def test_an_answer_tells_all_that_clients_look_for(path):
    engine = FakeEngine(cached_n=2)
    async with client(engine) as http:
        body = (await http.post(path, json={"prompt": "Once upon", "n_predict": 5, "seed": 7})).json()
    assert set(body) == LAST
    n_prompt = len(engine.seen[0].prompt)
    assert body["content"] == TEXT[: len(body["content"])]
    assert (body["stop"], body["stop_type"], body["stopping_word"]) == (True, "limit", "")
    assert (body["tokens_predicted"], body["tokens_evaluated"]) == (5, n_prompt)
    assert body["tokens_cached"] == n_prompt + 4
    assert body["tokens"] == []
    assert body["prompt"] == tokenizer().decode(engine.seen[0].prompt, skip_special=False)
    assert (body["timings"]["predicted_n"], body["timings"]["cache_n"]) == (5, 2)
    chosen = body["generation_settings"]
    assert (chosen["n_predict"], chosen["seed"], chosen["temperature"], chosen["top_k"]) == (5, 7, 0.8, 40)


async def test_defaults_are_llama_servers_and_those_of_the_operator_go_before():
    engine = FakeEngine()
    await ask({"prompt": "Hi"}, engine)
    await ask({"prompt": "Hi", "temperature": 0.1}, engine, default=["top_k=7", "temperature=0.3"])
    found = [(r.params.temperature, r.params.top_k, r.params.top_p, r.params.min_p) for r in engine.seen]
    assert found == [(0.8, 40, 0.95, 0.05), (0.1, 7, 0.95, 0.05)]


async def test_a_stream_has_an_event_for_each_token_and_no_done():
    chunks = await stream({"prompt": "Once", "n_probs": 3})
    *parts, last = chunks
    assert all(set(part) == FIRST | {"completion_probabilities"} for part in parts)
    assert "".join(part["content"] for part in parts) == TEXT
    assert [part["tokens"] for part in parts] == [[id] for id in ids(TEXT)]
    assert all(len(part["completion_probabilities"]) == 1 for part in parts)
    assert [part["tokens_predicted"] for part in parts[:3]] == [1, 2, 3]
    assert set(last) == LAST
    assert (last["content"], last["tokens"], last["stop_type"]) == ("", [], "eos")


async def test_several_tokens_at_once_become_several_events():
    chunks = await stream({"prompt": "Once"}, FakeEngine(step=4))
    assert [part["tokens"] for part in chunks[:-1]] == [[id] for id in ids(TEXT)]
    assert "".join(part["content"] for part in chunks) == TEXT


async def test_stop_strings_name_the_word_and_hold_nothing_back():
    body = {"prompt": "Once", "stop": ["garden", "cat"], "return_tokens": True}
    whole = await ask(body)
    assert (whole["content"], whole["stop_type"], whole["stopping_word"]) == (
        " there was a little ",
        "word",
        "cat",
    )
    assert tokenizer().decode(whole["tokens"]).startswith(" there was a little")
    chunks = await stream(body)
    assert "".join(part["content"] for part in chunks) == whole["content"]
    assert chunks[-1]["stopping_word"] == "cat"


async def test_how_it_ended():
    eos = await ask({"prompt": "Once"})
    assert (eos["stop_type"], eos["truncated"]) == ("eos", False)
    token = ids(TEXT)[2]
    word = await ask({"prompt": "Once", "stop_token_ids": [token]})
    assert (word["stop_type"], word["stopping_word"]) == ("word", tokenizer().token_text(token))
    full = await ask(
        {"prompt": "Once"}, FakeEngine(lambda r: ids(TEXT)[: 16 - len(r.prompt)], n_ctx=16, eos=False)
    )
    assert (full["stop_type"], full["truncated"]) == ("limit", True)


async def test_line_breaks_are_reported_and_may_end_a_text_that_takes_too_long():
    text = "one\ntwo\nthree\nfour"
    body = await ask({"prompt": "x"}, FakeEngine(text))
    assert (body["content"], body["has_new_line"]) == (text, True)
    assert (await ask({"prompt": "x"}))["has_new_line"] is False
    slow = FakeEngine(text, delay_s=0.005)
    cut = await ask({"prompt": "x", "t_max_predict_ms": 1}, slow)
    assert (cut["content"], cut["stop_type"]) == ("one\ntwo\n", "limit")
    assert slow.left  # the engine was told at once
    assert (await ask({"prompt": "x", "t_max_predict_ms": 60_000}, FakeEngine(text)))["content"] == text


async def test_ignore_eos_is_reported_as_a_bias():
    body = await ask({"prompt": "a", "ignore_eos": True, "n_predict": 3})
    bias = body["generation_settings"]["logit_bias"]
    assert {entry["token"] for entry in bias} == tokenizer().eog_ids
    assert all(entry["bias"] is None for entry in bias)


@pytest.mark.parametrize("post", [False, True])
async def test_probabilities(post):
    engine = FakeEngine()
    asked = {"prompt": "a", "n_probs": 3, "n_predict": 4, "post_sampling_probs": post}
    body = await ask(asked, engine)
    assert engine.seen[0].params.post_sampling == post
    value, top = ("prob", "top_probs") if post else ("logprob", "top_logprobs")
    assert len(body["completion_probabilities"]) == 4
    for entry, id in zip(body["completion_probabilities"], ids(TEXT), strict=False):
        assert set(entry) == {"id", "token", "bytes", value, top}
        assert entry["id"] == id
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry[value] == (pytest.approx(math.exp(-0.5)) if post else -0.5)
        assert len(entry[top]) == 3
        assert set(entry[top][0]) == {"id", "token", "bytes", value}
    assert "completion_probabilities" not in await ask({"prompt": "a", "n_probs": 0})


async def test_parts_of_characters_are_shown_as_the_text_that_they_complete():
    text = "ß 🍕."  # of several tokens each
    requested = {"prompt": "a", "n_probs": 2}
    whole = (await ask(requested, FakeEngine(text)))["completion_probabilities"]
    parts = [part["completion_probabilities"] for part in (await stream(requested, FakeEngine(text)))[:-1]]
    assert [entry for part in parts for entry in part] == whole
    assert [entry["id"] for entry in whole] == ids(text)
    assert "".join(entry["token"] for entry in whole) == text
    assert b"".join(bytes(entry["bytes"]) for entry in whole).decode() == text
    assert (whole[0]["token"], whole[0]["bytes"]) == ("", [0xC3])
    assert (whole[1]["token"], whole[1]["bytes"]) == ("ß", [0x9F])
    # Of the most likely tokens: the beginning of a character is nothing yet, its end alone no character.
    assert (whole[0]["top_logprobs"][0]["token"], whole[1]["top_logprobs"][0]["token"]) == ("", "\ufffd")


async def test_response_fields():
    fields = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing", "content/x"]
    body = await ask({"prompt": "a", "n_predict": 2, "response_fields": fields})
    assert body == {
        "content": " there was",
        "generation_settings/n_predict": 2,
        "timings/predicted_n": 2,
    }
    assert set(await ask({"prompt": "a", "response_fields": []})) == LAST


async def test_no_tokens_fill_the_cache_only():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "n_predict": 0}, engine)
    assert (body["content"], engine.seen[0].params.max_tokens) == ("", 0)


async def test_progress_and_times_in_a_stream():
    engine = FakeEngine(cached_n=1, prefill_s=0.01)
    chunks = await stream(
        {"prompt": "Once upon a time there was", "return_progress": True, "timings_per_token": True}, engine
    )
    progress = [chunk for chunk in chunks if "prompt_progress" in chunk]
    n = len(engine.seen[0].prompt)
    assert [chunk["prompt_progress"]["processed"] for chunk in progress] == [1, n // 2, n]
    assert all(chunk["content"] == "" and chunk["tokens"] == [] for chunk in progress)
    assert all("timings" in chunk for chunk in chunks)


async def test_an_error_in_a_stream_is_its_last_event():
    chunks = await stream({"prompt": "Once"}, FakeEngine(fail_after=2))
    assert chunks[-1]["error"]["code"] == "internal_error"
    assert [chunk["stop"] for chunk in chunks[:-1]] == [False, False]
