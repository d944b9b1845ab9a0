"""A completion in llama-server's words: how it ended, settings in force, probabilities."""

from __future__ import annotations

import math

import pytest

from support.api.llama_server import ask, stream
from support.fakes.engine import TEXT, FakeEngine, ids, tokenizer

pytestmark = pytest.mark.asyncio


async def test_stop_string_is_named_and_nothing_is_held_back():
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


async def test_stop_type_says_how_generation_ended():
    eos = await ask({"prompt": "Once"})
    assert (eos["stop_type"], eos["truncated"]) == ("eos", False)
    token = ids(TEXT)[2]
    word = await ask({"prompt": "Once", "stop_token_ids": [token]})
    assert (word["stop_type"], word["stopping_word"]) == ("word", tokenizer().token_text(token))
    full = await ask(
        {"prompt": "Once"}, FakeEngine(lambda r: ids(TEXT)[: 16 - len(r.prompt)], n_ctx=16, eos=False)
    )
    assert (full["stop_type"], full["truncated"]) == ("limit", True)


async def test_line_break_is_reported_and_ends_text_over_its_time():
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
async def test_n_probs_adds_the_most_likely_tokens(post):
    engine = FakeEngine()
    request_body = {"prompt": "a", "n_probs": 3, "n_predict": 4, "post_sampling_probs": post}
    body = await ask(request_body, engine)
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


async def test_partial_characters_are_shown_as_the_text_they_complete():
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
