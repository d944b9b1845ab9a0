"""POST /completion: llama-server's own request and answer."""

from __future__ import annotations

import json
import math

import pytest

from support.fake_engine import TEXT, FakeEngine, ids, make_app, tokenizer
from support.http import client, error_of

pytestmark = pytest.mark.asyncio
PATH = "/completion"
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


async def ask(body, engine=None, **settings):
    if engine is not None:
        engine.state = "ready"  # it may have been used before
    async with client(make_app(engine, **settings)) as http:
        response = await http.post(PATH, json=body)
        assert response.status_code == 200, response.text
        return response.json()


async def refused(body, param, engine=None):
    async with client(engine) as http:
        error = error_of(await http.post(PATH, json=body), 400)
    assert error["param"] == param, error
    return error["message"]


def events(text):
    """No [DONE] here."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def stream(body, engine=None):
    async with client(engine) as http:
        response = await http.post(PATH, json={**body, "stream": True})
        assert response.headers["content-type"].startswith("text/event-stream")
        return events(response.text)


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


async def test_line_breaks_are_told_and_may_end_a_text_that_takes_too_long():
    text = "one\ntwo\nthree\nfour"
    body = await ask({"prompt": "x"}, FakeEngine(text))
    assert (body["content"], body["has_new_line"]) == (text, True)
    assert (await ask({"prompt": "x"}))["has_new_line"] is False
    slow = FakeEngine(text, delay_s=0.005)
    cut = await ask({"prompt": "x", "t_max_predict_ms": 1}, slow)
    assert (cut["content"], cut["stop_type"]) == ("one\ntwo\n", "limit")
    assert slow.left  # the engine was told at once
    assert (await ask({"prompt": "x", "t_max_predict_ms": 60_000}, FakeEngine(text)))["content"] == text


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([5, 6, 7], [[5, 6, 7]]),
        ([5, " cat", 6], [[5, *ids(" cat"), 6]]),
        (["Once", 5], [[*tokenizer().encode("Once", parse_special=True), 5]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
        ([[5, 6], "Once"], [[5, 6], tokenizer().encode("Once", parse_special=True)]),
        ({"prompt_string": "Once"}, [tokenizer().encode("Once", parse_special=True)]),
        ([[5], {"prompt_string": "Once", "multimodal_data": []}], [[5], tokenizer().encode("Once")]),
        ([[5, " cat"]], [[5, *ids(" cat")]]),
    ],
)
async def test_forms_of_prompts(prompt, expected):
    engine = FakeEngine()
    body = await ask({"prompt": prompt, "n_predict": 1}, engine)
    assert [r.prompt for r in engine.seen] == expected
    answers = body if isinstance(body, list) else [body]
    assert [answer["index"] for answer in answers] == list(range(len(expected)))
    assert isinstance(body, list) == (len(expected) > 1)


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        {},
        {"prompt_string": 5},
        {"prompt_string": "x", "multimodal_data": ["aGk="]},
        [],
        [[]],
        [None],
        [-1, 2],
        [5, 1.5],
        [[5], [10**6]],
        [5, " cat", 10**6],
        [5, " cat"] * 400,
        "x " * 5000,
        [1] * 600,
        [" "] * 5000,
    ],
)
async def test_prompts_that_cannot_be_are_refused(prompt):
    await refused({"prompt": prompt}, "prompt")


async def test_n_and_its_limit():
    body = await ask({"prompt": ["a", "b"], "n": 2, "n_predict": 1})
    assert [answer["index"] for answer in body] == [0, 1, 2, 3]
    await refused({"prompt": "a", "n": 10**6}, "n")
    await refused({"prompt": ["a"] * 17}, "prompt")


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ([[5, 1.5]], {5: 1.5}),
        ([["5", -100]], {5: -100}),
        ({"5": 2}, {5: 2}),
        ([[5, False]], {5: -math.inf}),
        ([[5, 1], [5, 2]], {5: 3}),
        ([[" cat", -2]], dict.fromkeys(ids(" cat"), -2)),
        ({" little cat": False}, dict.fromkeys(ids(" little cat"), -math.inf)),
        ([], {}),
    ],
)
async def test_forms_of_logit_bias(bias, expected):
    engine = FakeEngine()
    body = await ask({"prompt": "a", "logit_bias": bias, "temperature": 0}, engine)
    assert engine.seen[0].params.logit_bias == expected
    told = {entry["token"]: entry["bias"] for entry in body["generation_settings"]["logit_bias"]}
    assert told == {id: None if value == -math.inf else value for id, value in expected.items()}


@pytest.mark.parametrize(
    "bias",
    [
        5,
        "x",
        [5],
        [[5]],
        [[5, 1, 2]],
        [[5, True]],
        [[5, "1"]],
        [[-1, 1]],
        [["", 1]],
        [[10**6, 1]],
        [[5, 1e9]],
    ],
)
async def test_logit_bias_that_cannot_be_is_refused(bias):
    await refused({"prompt": "a", "logit_bias": bias}, "logit_bias")


async def test_ignore_eos_is_told_as_a_bias():
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


async def test_response_fields():
    fields = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing", "content/x"]
    body = await ask({"prompt": "a", "n_predict": 2, "response_fields": fields})
    assert body == {
        "content": " there was",
        "generation_settings/n_predict": 2,
        "timings/predicted_n": 2,
    }
    assert set(await ask({"prompt": "a", "response_fields": []})) == LAST


async def test_samplers_that_are_left_out_do_nothing():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "samplers": ["top_k", "infill"], "min_p": 0.2}, engine)
    params = engine.seen[0].params
    assert (params.top_k, params.top_p, params.min_p, params.temperature) == (40, 1, 0, 1)
    assert body["warnings"] == [
        "samplers: 'infill' has no effect, there is no such step",
        "min_p has no effect: samplers leaves its step out",
    ]
    assert "warnings" not in await ask({"prompt": "a", "samplers": "edskypmxt"})
    body = await ask({"prompt": "a", "samplers": ["temperature", "top_k"]})
    assert body["warnings"][0].startswith("samplers: their order has no effect")


NEUTRAL = {
    "min_keep": 0,
    "top_n_sigma": -1.0,
    "dynatemp_range": 0,
    "dynatemp_exponent": 1.0,
    "xtc_probability": 0,
    "xtc_threshold": 0.1,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": -1,
    "dry_sequence_breakers": [],
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "n_keep": 0,
    "n_discard": 0,
    "n_cache_reuse": 0,
    "n_indent": 0,
    "backend_sampling": False,
    "grammar": "",
    "t_max_predict_ms": -1,
    "n_predict": -1,
    "seed": -1,
}


async def test_neutral_values_are_silent_and_others_are_named():
    assert "warnings" not in await ask({"prompt": "a", **NEUTRAL})
    asked = {
        "min_keep": 5,
        "top_n_sigma": 1.5,
        "dynatemp_range": 0.5,
        "dynatemp_exponent": 2,
        "xtc_probability": 0.1,
        "xtc_threshold": 0.2,
        "dry_multiplier": 0.8,
        "dry_base": 2,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 100,
        "dry_sequence_breakers": ["a"],
        "adaptive_target": 0.5,
        "adaptive_decay": 0.5,
        "backend_sampling": True,
        "n_keep": -1,
        "n_discard": 10,
        "n_cache_reuse": 256,
        "n_indent": 4,
        "lora": [{"id": 0, "scale": 1}],
    }
    body = await ask({"prompt": "a", **asked})
    assert {text.split(" ")[0].rstrip(":") for text in body["warnings"]} == set(asked)


async def test_a_seed_of_minus_one_is_a_random_one():
    engine = FakeEngine()
    for _ in range(2):
        await ask({"prompt": "a", "seed": -1}, engine)
    first, second = (r.params.seed for r in engine.seen)
    assert first != second


async def test_no_tokens_fill_the_cache_only():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "n_predict": 0}, engine)
    assert (body["content"], engine.seen[0].params.max_tokens) == ("", 0)


async def test_limits_have_three_names():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "max_tokens": 3, "n_predict": 2}, engine)
    assert body["warnings"] == ["max_tokens has no effect: n_predict is given"]
    assert (await ask({"prompt": "a", "max_tokens": 3}, engine))["tokens_predicted"] == 3
    body = await ask({"prompt": "a", "n_predict": 10**6}, engine)
    assert body["warnings"][0].startswith("n_predict: only ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_predict", -3),
        ("n_predict", 2**31),
        ("n_probs", 21),
        ("n_discard", -1),
        ("n_keep", -2),
        ("samplers", 5),
        ("samplers", [5]),
        ("response_fields", "content"),
        ("response_fields", ["x"] * 65),
        ("id_slot", "0"),
        ("xtc_probability", 2),
        ("temperature", "hot"),
    ],
)
async def test_values_that_cannot_be_are_refused(field, value):
    async with client() as http:
        error = error_of(await http.post(PATH, json={"prompt": "a", field: value}), 400)
    assert error["param"].split("[")[0] == field
    assert field in error["message"]


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


async def test_what_the_text_must_match():
    engine = FakeEngine()
    async with client(engine) as http:
        for field, value, kind in (
            ("grammar", 'root ::= "yes" | "no"', "gbnf"),
            ("json_schema", {}, "json_object"),
            ("json_schema", {"type": "integer"}, "json_schema"),
            ("response_format", {"type": "choice", "choices": ["yes"]}, "choice"),
        ):
            body = (await http.post(PATH, json={"prompt": "a", "n_predict": 2, field: value})).json()
            assert engine.seen[-1].constraint.kind == kind
            assert body["generation_settings"]["grammar"] == (value if field == "grammar" else "")
        for field, value in (("grammar", "root ::= ("), ("json_schema", {"type": 5})):
            error = error_of(await http.post(PATH, json={"prompt": "a", field: value}), 400)
            assert error["param"].startswith(field)
    assert len(engine.seen) == 4
