"""POST /completion: the forms of its fields, what is refused, and what has no effect."""

from __future__ import annotations

import math

import pytest

from support.api.http import client, error_of
from support.api.llama_server import PATH, ask, refused
from support.fakes.engine import FakeEngine, ids, tokenizer

pytestmark = pytest.mark.asyncio


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
async def test_invalid_prompts_are_refused(prompt):
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
    biases = {entry["token"]: entry["bias"] for entry in body["generation_settings"]["logit_bias"]}
    assert biases == {id: None if value == -math.inf else value for id, value in expected.items()}


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
async def test_invalid_logit_bias_is_refused(bias):
    await refused({"prompt": "a", "logit_bias": bias}, "logit_bias")


ONLY_IN_REPLIES = {
    *("chat_format", "generation_prompt", "grammar_lazy", "grammar_triggers", "preserved_tokens"),
    *("reasoning_format", "reasoning_in_content", "speculative.types"),
}


async def test_neutral_values_are_silent_and_others_are_named():
    reported = (await ask({"prompt": "a"}))["generation_settings"]
    neutral = {"n_cache_reuse": 0, "n_indent": 0, "t_max_predict_ms": -1, "seed": -1}
    body = await ask({"prompt": "a", **reported, **neutral})
    assert {text.removesuffix(" has no effect") for text in body["warnings"]} == ONLY_IN_REPLIES
    request_body = {
        "backend_sampling": True,
        "n_keep": -1,
        "n_discard": 10,
        "n_cache_reuse": 256,
        "n_indent": 4,
    }
    body = await ask({"prompt": "a", **request_body})
    assert {text.split(" ")[0].rstrip(":") for text in body["warnings"]} == set(request_body)


SAMPLING = {
    "min_keep": 5,
    "top_n_sigma": 1.5,
    "dynatemp_range": 0.5,
    "dynatemp_exponent": 2.0,
    "xtc_probability": 0.1,
    "xtc_threshold": 0.2,
    "dry_multiplier": 0.8,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 100,
    "dry_sequence_breakers": ["a"],
    "adaptive_target": 0.5,
    "adaptive_decay": 0.5,
    "samplers": ["temperature", "dry", "adaptive_p", "xtc", "min_p"],
}


async def test_sampling_fields_reach_the_engine_and_are_reported():
    engine = FakeEngine()
    request_body = {**SAMPLING, "samplers": ["temp", "dry", "adaptive-p", "x", "infill", "minp"]}
    body = await ask({"prompt": "a", "min_p": 0.2, "top_k": 3, **request_body}, engine)
    params, settings = engine.seen[0].params, body["generation_settings"]
    for name, value in SAMPLING.items():
        assert getattr(params, name) == (tuple(value) if isinstance(value, list) else value)
        assert settings[name] == value
    assert body["warnings"] == [
        "samplers: 'infill' has no effect: there is no such sampler",
        "top_n_sigma has no effect: samplers leaves its step out",
        "top_k has no effect: samplers leaves its step out",
    ]


async def test_samplers_may_be_a_string_of_letters():
    engine = FakeEngine()
    assert "warnings" not in await ask({"prompt": "a", "samplers": "edskypmxt"}, engine)
    assert engine.seen[0].params.samplers[:3] == ("penalties", "dry", "top_n_sigma")
    body = await ask({"prompt": "a", "samplers": "kq"}, engine)
    assert engine.seen[1].params.samplers == ("top_k",)
    assert body["warnings"] == ["samplers: 'q' has no effect: there is no such sampler"]


async def test_a_seed_of_minus_one_is_a_random_one():
    engine = FakeEngine()
    for _ in range(2):
        await ask({"prompt": "a", "seed": -1}, engine)
    first, second = (r.params.seed for r in engine.seen)
    assert first != second


async def test_limits_have_three_names():
    engine = FakeEngine()
    body = await ask({"prompt": "a", "max_tokens": 3, "n_predict": 2}, engine)
    assert body["warnings"] == ["max_tokens has no effect: n_predict is set"]
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
        ("samplers", "k" * 17),
        ("dry_base", 0.5),
        ("dry_sequence_breakers", [""]),
        ("dry_sequence_breakers", ["é" * 30]),
        ("dry_sequence_breakers", ["a"] * 33),
        ("adaptive_decay", 1),
        ("temperature", "hot"),
    ],
)
async def test_invalid_values_are_refused(field, value):
    async with client() as http:
        error = error_of(await http.post(PATH, json={"prompt": "a", field: value}), 400)
    assert error["param"].split("[")[0] == field
    assert field in error["message"]


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
