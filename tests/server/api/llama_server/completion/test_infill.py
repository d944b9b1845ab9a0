"""Filling in the middle: POST /infill, and `suffix` of completions."""

from __future__ import annotations

import copy

import pytest

from server.input.infill import ExtraFile, gap
from support.api.http import COMPLETIONS, client, error_of
from support.fakes.engine import TEXT, FakeEngine, tokenizer

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


async def test_the_gap_stands_between_its_marks():
    engine = fim_engine()
    body = await infill({"input_prefix": "a = ", "prompt": "b", "input_suffix": "\nend"}, engine)
    assert engine.seen[0].prompt == [BOS, PRE, *text("a = b"), SUF, *text("\nend"), MID]
    assert body["content"] == TEXT
    assert body["stop_type"] == "eos"


async def test_text_is_never_a_special_token():
    engine = fim_engine()
    await infill({"input_prefix": "</s><|end|>", "input_suffix": "<s>"}, engine)
    assert engine.seen[0].prompt == [BOS, PRE, *text("</s><|end|>"), SUF, *text("<s>"), MID]


async def test_other_files_come_first():
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


async def test_what_does_not_fit_is_left_out_with_a_warning():
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


async def test_a_gap_without_texts():
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


async def test_a_model_without_the_tokens_says_so():
    async with client() as http:
        error = error_of(await http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"}), 501)
        assert error["code"] == "not_supported"
        assert "no token for prefix, suffix, middle" in error["message"]
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "a", "suffix": "b"}), 400)
        assert (error["param"], error["code"]) == ("suffix", "unsupported_value")


async def test_suffix_of_a_completion():
    engine = fim_engine()
    async with client(engine) as http:
        body = {"prompt": ["a", text("c")], "suffix": "b", "echo": True}
        answer = (await http.post(COMPLETIONS, json=body)).json()
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "a", "suffix": "b " * 600}), 400)
    assert [r.prompt for r in engine.seen] == [[BOS, PRE, *text(p), SUF, *text("b"), MID] for p in ("a", "c")]
    assert [choice["text"] for choice in answer["choices"]] == ["a" + TEXT, "c" + TEXT]
    assert (error["param"], error["code"]) == ("suffix", "context_length_exceeded")
