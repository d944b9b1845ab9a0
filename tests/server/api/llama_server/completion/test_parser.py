"""POST /completion: the forms of its fields, what is refused, and what has no effect."""

from __future__ import annotations

import copy
import math

import pytest

from server.input.infill import ExtraFile, gap
from support.api.http import COMPLETIONS, client, error_of
from support.api.llama_server import PATH, ask, refused
from support.fakes.engine import TEXT, FakeEngine, ids, tokenizer

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
async def test_every_form_of_prompt_is_accepted(prompt, expected):
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


async def test_n_multiplies_prompts_within_its_limit():
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
async def test_every_form_of_logit_bias_is_accepted(bias, expected):
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


async def test_ineffective_fields_are_named_unless_neutral():
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


async def test_seed_of_minus_one_is_random():
    engine = FakeEngine()
    for _ in range(2):
        await ask({"prompt": "a", "seed": -1}, engine)
    first, second = (r.params.seed for r in engine.seen)
    assert first != second


async def test_token_limit_has_several_names_and_one_is_applied():
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


async def test_every_constraint_field_reaches_the_engine():
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


pytestmark = pytest.mark.asyncio
PRE, SUF, MID, REPOSITORY, FILE = 2000, 2001, 2002, 2003, 2004
BOS = tokenizer().bos_id


def fim_tokenizer(repository=False):
    changed = copy.copy(tokenizer())
    changed.fim_pre_id, changed.fim_suf_id, changed.fim_mid_id = PRE, SUF, MID
    if repository:
        changed.fim_rep_id, changed.fim_sep_id = REPOSITORY, FILE
    return changed


def fim_engine(repository=False, **options):
    engine = FakeEngine(**options)
    engine.tokenizer = fim_tokenizer(repository)
    return engine


def text(value):
    return tokenizer().encode(value, add_special=False, parse_special=False)


async def infill(body, engine):
    async with client(engine) as http:
        response = await http.post("/infill", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_infill_prompt_has_prefix_suffix_and_middle_tokens():
    engine = fim_engine()
    body = await infill({"input_prefix": "a = ", "prompt": "b", "input_suffix": "\nend"}, engine)
    assert engine.seen[0].prompt == [BOS, PRE, *text("a = b"), SUF, *text("\nend"), MID]
    assert body["content"] == TEXT
    assert body["stop_type"] == "eos"


async def test_infill_texts_are_never_read_as_special_tokens():
    engine = fim_engine()
    await infill({"input_prefix": "</s><|end|>", "input_suffix": "<s>"}, engine)
    assert engine.seen[0].prompt == [BOS, PRE, *text("</s><|end|>"), SUF, *text("<s>"), MID]


async def test_extra_files_come_before_the_prefix():
    extra = [{"filename": "a.h", "text": "int a;"}, {"text": "int b;"}]
    body = {"input_prefix": "x", "input_suffix": "y", "input_extra": extra}
    engine = fim_engine(repository=True)
    await infill(body, engine)
    files = [FILE, *text("a.h\n"), *text("int a;"), FILE, *text("tmp\n"), *text("int b;")]
    before = [REPOSITORY, *text("myproject\n"), *files, FILE, *text("filename\n")]
    assert engine.seen[0].prompt == [BOS, *before, PRE, *text("x"), SUF, *text("y"), MID]
    plain = fim_engine()
    await infill(body, plain)
    snippet = text("\n\n--- snippet ---\n\n")
    before = [*snippet, *text("int a;"), *snippet, *text("int b;")]
    assert plain.seen[0].prompt == [BOS, *before, PRE, *text("x"), SUF, *text("y"), MID]


async def test_extra_files_that_do_not_fit_are_left_out_with_a_warning():
    engine = fim_engine(n_ctx=64)
    long = "one two three four five six seven eight nine ten " * 20
    body = {"input_prefix": long, "input_suffix": long, "input_extra": [{"text": long}], "n_predict": 8}
    answer = await infill(body, engine)
    prompt = engine.seen[0].prompt
    assert len(prompt) == 64 - 8
    place = prompt.index(SUF)
    assert prompt[2:place] == text(long)[-(place - 2) :]
    assert prompt[place + 1 : -1] == text(long)[: 64 - 8 - place - 2]
    assert [warning.split(":")[0] for warning in answer["warnings"]] == [
        "input_extra",
        "input_prefix",
        "input_suffix",
    ]


async def test_infill_of_empty_texts_has_only_special_tokens():
    assert gap(fim_tokenizer(), "", "", [ExtraFile("")]).prompt(fim_tokenizer())[-3:] == [PRE, SUF, MID]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_prefix": None}, "input_prefix"),
        ({"input_suffix": 5}, "input_suffix"),
        ({"prompt": [1]}, "prompt"),
        ({"input_extra": {}}, "input_extra"),
        ({"input_extra": [{}]}, "input_extra[0].text"),
        ({"input_extra": [{"text": "x", "filename": 1}]}, "input_extra[0].filename"),
        ({"input_extra": [{"text": "x"}] * 1025}, "input_extra"),
        ({"n": 99}, "n"),
    ],
)
async def test_invalid_requests_are_refused(change, param):
    body = {"input_prefix": "a", "input_suffix": "b", **change}
    async with client(fim_engine()) as http:
        assert error_of(await http.post("/infill", json=body), 400)["param"] == param


async def test_model_without_infill_tokens_is_refused():
    async with client() as http:
        error = error_of(await http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"}), 501)
        assert error["code"] == "not_supported"
        assert "no token for prefix, suffix, middle" in error["message"]
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "a", "suffix": "b"}), 400)
        assert (error["param"], error["code"]) == ("suffix", "unsupported_value")


async def test_suffix_of_a_completion_makes_an_infill_prompt():
    engine = fim_engine()
    async with client(engine) as http:
        body = {"prompt": ["a", text("c")], "suffix": "b", "echo": True}
        answer = (await http.post(COMPLETIONS, json=body)).json()
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "a", "suffix": "b " * 600}), 400)
    assert [r.prompt for r in engine.seen] == [[BOS, PRE, *text(p), SUF, *text("b"), MID] for p in ("a", "c")]
    assert [choice["text"] for choice in answer["choices"]] == ["a" + TEXT, "c" + TEXT]
    assert (error["param"], error["code"]) == ("suffix", "context_length_exceeded")
