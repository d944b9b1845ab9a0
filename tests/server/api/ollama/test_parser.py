"""From Ollama's requests to what the model and the engine get."""

from __future__ import annotations

import json

import pytest

from engine.types import Constraint
from support.api.http import client
from support.api.named_events import SHOWING, THINKING, messages_seen, template
from support.api.routes import able_engine, refusal
from support.fakes.engine import FakeEngine, ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio
CHAT, GENERATE = "/api/chat", "/api/generate"
HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def body(path, **fields):
    start = {"messages": [HI]} if path == CHAT else {"prompt": "Hi"}
    return {"model": "stories", "stream": False, **start, **fields}


async def post(engine, path, *, folder=None, **fields):
    """A whole response. folder: use the template SHOWING."""
    app = make_app(engine, **({} if folder is None else {"chat_template": template(folder, SHOWING)}))
    engine.state = "ready"
    async with client(app) as http:
        response = await http.post(path, json=body(path, **fields))
    assert response.status_code == 200, response.text
    return response.json()


async def refused(path, engine=None, **fields):
    async with client(engine) as http:
        return refusal(await http.post(path, json=body(path, **fields)), path)


# --- options


@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_options_reach_the_engine(path):
    engine = FakeEngine()
    options = {
        "num_predict": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.4,
        "min_p": 0.2,
        "typical_p": 0.9,
        "seed": 5,
        "repeat_penalty": 1.5,
        "repeat_last_n": 9,
        "presence_penalty": 0.25,
        "frequency_penalty": 0.75,
        "num_batch": 16,
        "num_ctx": 512,
    }
    reply = await post(engine, path, options=options)
    (request,) = engine.seen
    assert "warnings" not in reply
    assert (request.params.max_tokens, request.n_batch) == (7, 16)
    for name, value in options.items():
        if not name.startswith("num_"):
            assert getattr(request.params, name) == value, name


@pytest.mark.parametrize(("n", "limit"), [(-1, None), (-2, None), (0, 0), (3, 3)])
async def test_num_predict_below_0_means_no_limit(n, limit):
    engine = FakeEngine()
    await post(engine, GENERATE, options={"num_predict": n})
    assert engine.seen[0].params.max_tokens == limit


async def test_seed_of_minus_1_is_random_for_each_request():
    engine = FakeEngine()
    for seed in (-1, -1, -2):
        await post(engine, GENERATE, options={"seed": seed})
    first, second, third = (request.params.seed for request in engine.seen)
    assert first != second
    assert third == 2**64 - 2


@pytest.mark.parametrize(
    ("text", "bias"), [("50:-100, 413:5.5", {50: -100.0, 413: 5.5}), (" 7 : 1 ,", {7: 1.0}), ("", {})]
)
async def test_logit_biases_may_be_text(text, bias):
    engine = FakeEngine()
    await post(engine, CHAT, options={"logit_bias": text})
    assert engine.seen[0].params.logit_bias == bias


async def test_options_without_effect_are_named():
    reply = await post(
        FakeEngine(), GENERATE, options={"num_gpu": 1, "num_ctx": 5, "low_vram": None, "num_keep": 4}
    )
    assert reply["warnings"] == [
        "options.num_gpu has no effect",
        "options.num_ctx has no effect: the context has 512 tokens (--context-size)",
        "options.num_keep has no effect: the server runs without --context-shift",
    ]


@pytest.mark.parametrize("batch_size", ["num_batch", "n_batch", "batch_size"])
@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_warnings_name_options_as_the_request_does(path, batch_size):
    options = {batch_size: 1000, "id_slot": 999, "stop": ["", "x"], "num_predict": 5000, "mirostat_tau": 3}
    reply = await post(FakeEngine(), path, options=options, temperature=1)
    names = [text.split()[0].rstrip(":") for text in reply["warnings"]]
    expected = {f"options.{name}" for name in options} | {"temperature"}
    assert set(names) == expected
    assert len(names) == len(expected)


@pytest.mark.parametrize(
    ("value", "warned"),
    [
        ("5m", True),
        ("1h30m", True),
        ("1.5h", True),
        ("0", True),
        (0, True),
        (300, True),
        (0.5, True),
        (-1, False),
        ("-1m", False),
        (None, False),
    ],
)
async def test_keep_alive_gets_a_warning_unless_it_is_forever(value, warned):
    reply = await post(FakeEngine(), GENERATE, keep_alive=value)
    assert reply.get("warnings", []) == ["keep_alive has no effect: models of --model stay loaded"] * warned


@pytest.mark.parametrize(
    "value", ["", "5", "m", "5 m", "5m ", "1d", "\u0665m", "-", "5mm", True, [], {}, 2**31, "9" * 400 + "h"]
)
async def test_keep_alive_that_is_not_a_duration_is_refused(value):
    assert (await refused(GENERATE, keep_alive=value))["param"] == "keep_alive"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": -1}, "options.temperature"),
        ({"num_predict": -3}, "options.num_predict"),
        ({"num_predict": "5"}, "options.num_predict"),
        ({"stop": [5]}, "options.stop"),
        ({"stop_token_ids": [2048]}, "options.stop_token_ids"),
        ({"logit_bias": {"2048": 1}}, "options.logit_bias"),
        ({"logit_bias": "2048:1"}, "options.logit_bias"),
        ({"logit_bias": "5"}, "options.logit_bias"),
        ({"logit_bias": "5:101"}, "options.logit_bias"),
        ({"logit_bias": "5:1;6:1"}, "options.logit_bias"),
        ({"batch_size": 2, "n_batch": 3}, "options.n_batch"),
        ({"num_batch": 2, "n_batch": 3}, "options.n_batch"),
        ({"num_batch": 2, "batch_size": 3}, "options.batch_size"),
        ([], "options"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_invalid_options_are_refused_by_name(path, options, param):
    assert (await refused(path, options=options))["param"] == param


# --- format, tools, thinking


@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_format_constrains_the_text(path):
    engine = FakeEngine()
    for format in ("json", {}, SCHEMA, "", None):
        await post(engine, path, format=format)
    kinds = [request.constraint and request.constraint.kind for request in engine.seen]
    assert kinds == ["json_object", "json_object", "json_schema", None, None]
    assert isinstance(engine.seen[2].constraint, Constraint)
    assert json.loads(engine.seen[2].constraint.text)["required"] == ["a"]


@pytest.mark.parametrize("format", ["yaml", 5, [], {"type": "strin"}, {"type": "object", "required": 5}])
@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_invalid_format_is_refused(path, format):
    assert (await refused(path, format=format))["param"] == "format"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "web_search"}, "tools[0].type"),
        ({"type": "function"}, "tools[0].function"),
        ({"function": {}}, "tools[0].function.name"),
        ({"function": {"name": "f", "parameters": []}}, "tools[0].function.parameters"),
        ({"function": {"name": "f", "parameters": {"type": "array"}}}, "tools[0].function.parameters"),
    ],
)
async def test_tools_that_cannot_be_called_are_refused_by_name(tool, param):
    assert (await refused(CHAT, tools=[tool]))["param"] == param


@pytest.mark.parametrize("path", [CHAT, GENERATE])
async def test_think_for_a_model_without_reasoning_has_the_error_text_clients_expect(path):
    for think in (True, "low"):
        error = await refused(path, think=think)
        assert error["message"] == 'think: "stories" does not support thinking'
    assert "warnings" not in await post(FakeEngine(), path, think=False)


@pytest.mark.parametrize(
    ("think", "rendered"),
    [(None, "True/"), (True, "True/"), (False, "False/"), ("high", "True/high"), ("max", "True/max")],
)
async def test_think_reaches_the_template(tmp_path, think, rendered):
    engine = FakeEngine()
    source = THINKING + "{{ messages[0].content }}={{ enable_thinking }}/{{ reasoning_effort }}"
    async with client(make_app(engine, chat_template=template(tmp_path, source))) as http:
        for path in (CHAT, GENERATE):
            response = await http.post(path, json=body(path, think=think))
            assert response.status_code == 200, response.text
    for request in engine.seen:
        assert f"Hi={rendered}" in tokenizer().decode(request.prompt)


# --- messages


async def test_messages_become_those_of_the_template(tmp_path):
    engine = FakeEngine(n_ctx=4096)
    call = {"function": {"name": "find", "arguments": {"a": 1}}}
    messages = [
        {"role": "SYSTEM", "content": "Be brief"},
        HI,
        {"role": "assistant", "content": "", "thinking": "Hm", "tool_calls": [call, call]},
        {"role": "tool", "content": "one", "tool_name": "find"},
        {"role": "tool", "content": "two", "tool_name": "find", "images": []},
        {"role": "user", "content": None},
    ]
    await post(engine, CHAT, folder=tmp_path, messages=messages)
    system, _, assistant, one, two, _ = messages_seen(engine)
    assert (system["role"], system["content"]) == ("system", "Be brief")
    first, second = assistant["tool_calls"]
    assert first["id"] != second["id"]
    assert first["function"]["name"] == "find"
    assert assistant["reasoning_content"] == "Hm"
    assert (one["content"], one["tool_call_id"], one["name"]) == ("one", first["id"], "find")
    assert (two["content"], two["tool_call_id"]) == ("two", second["id"])


async def test_results_are_matched_to_calls_by_id_name_and_order(tmp_path):
    engine = FakeEngine(n_ctx=4096)
    calls = [
        {"id": "c1", "function": {"name": "a", "arguments": {}}},
        {"function": {"name": "b", "index": 1}},
        {"function": {"name": "a"}},
    ]
    messages = [
        HI,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "of b", "tool_name": "b"},
        {"role": "tool", "content": "of a, by id", "tool_call_id": "c1"},
        {"role": "tool", "content": "of the last"},
    ]
    await post(engine, CHAT, folder=tmp_path, messages=messages)
    _, assistant, *results = messages_seen(engine)
    names = [call["id"] for call in assistant["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == [names[1], "c1", names[2]]


@pytest.mark.parametrize("name", ["tool_name", "tool_call_id"])
async def test_tool_name_of_another_message_gets_a_warning(name):
    reply = await post(FakeEngine(), CHAT, messages=[{**HI, name: "find"}])
    assert [text.split(":")[0] for text in reply["warnings"]] == ["messages[0]"]


async def test_call_as_open_webui_writes_it_gets_no_warning(tmp_path):
    engine = FakeEngine(n_ctx=4096)
    call = {"index": 0, "id": None, "type": "function", "function": {"name": "find", "arguments": {}}}
    messages = [
        HI,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x"},
    ]
    reply = await post(engine, CHAT, folder=tmp_path, messages=messages)
    assert "warnings" not in reply
    assert messages_seen(engine)[1]["tool_calls"][0]["id"] == messages_seen(engine)[2]["tool_call_id"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "images": ["iVBORw0KGgo="]}, "messages[0].images"),
        ({"role": "boss", "content": "x"}, "messages[0].role"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": "x", "thinking": "x"}, "messages[0].thinking"),
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "messages[0].tool_calls",
        ),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "messages[0].tool_calls[0].function.name"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ("x", "messages[0]"),
    ],
)
async def test_invalid_messages_are_refused_by_name(message, param):
    assert (await refused(CHAT, messages=[message]))["param"] == param


async def test_images_are_refused_with_advice():
    error = await refused(GENERATE, images=["iVBORw0KGgo="])
    assert error["message"] == "images: image input is not supported by this model; send text"


# --- prompts of /api/generate


async def test_prompt_is_a_message_with_the_system_message_before_it(tmp_path):
    engine = FakeEngine(n_ctx=4096)
    await post(engine, GENERATE, folder=tmp_path, system="Be brief")
    assert [(m["role"], m["content"]) for m in messages_seen(engine)] == [
        ("system", "Be brief"),
        ("user", "Hi"),
    ]


async def test_raw_prompt_is_continued_as_it_is():
    engine = FakeEngine()
    await post(engine, GENERATE, raw=True)
    assert engine.seen[0].prompt == [tokenizer().bos_id, *ids("Hi")]
    reply = await post(engine, GENERATE, raw=True, think=True)
    assert reply["warnings"] == ["think has no effect: raw is true"]
    for field in ({"system": "x"}, {"context": [5]}):
        error = await refused(GENERATE, raw=True, **field)
        assert "raw mode does not support template, system, or context" in error["message"]


async def test_model_without_a_chat_template_continues_the_prompt():
    engine = FakeEngine()
    engine.tokenizer = able_engine().tokenizer
    engine.tokenizer.chat_template = None
    reply = await post(engine, GENERATE, system="Be brief", context=[1, 5])
    assert reply["warnings"] == ["system has no effect: the model has no chat template"]
    assert engine.seen[0].prompt == [1, 5, *ids("Hi")]


async def test_suffix_makes_an_infill_prompt():
    engine = able_engine()
    reply = await post(engine, GENERATE, suffix=" end", system="x", context=[5])
    prompt = engine.seen[0].prompt
    assert engine.tokenizer.fim_suf_id in prompt
    assert prompt[-1] == engine.tokenizer.fim_mid_id
    assert [text.split()[0] for text in reply["warnings"]] == ["system", "context"]
    assert (await refused(GENERATE, suffix=" end"))["param"] == "suffix"


async def test_ollama_template_is_refused():
    assert (await refused(GENERATE, template="{{ .Prompt }}"))["param"] == "template"


async def test_context_comes_before_the_prompt_and_begins_the_text():
    engine = FakeEngine(n_ctx=4096)
    first = await post(engine, GENERATE)
    second = await post(engine, GENERATE, context=first["context"])
    before, after = (request.prompt for request in engine.seen)
    assert first["context"] == [*before, *engine.reply, tokenizer().eos_id]
    assert after == [*first["context"], *before[1:]]
    assert second["prompt_eval_count"] == len(after)


@pytest.mark.parametrize("context", [[2048], [-1], ["a"], "a", [5] * 600])
async def test_invalid_context_is_refused(context):
    error = await refused(GENERATE, context=context)
    assert error["param"] in ("context", "prompt")
    assert error["param"] == "context" or "600" not in error["message"]
