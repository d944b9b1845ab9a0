"""POST /api/generate and /api/chat: what comes out, as lines and whole; /api/embed and /api/embeddings."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from support.api.chat import QWEN, answering, app
from support.api.http import Live, client
from support.api.routes import refusal
from support.api.tools import CALLS, PARAMETERS, VALUE
from support.fakes.engine import N_EMBD, TEXT, FakeEngine, ids, make_app
from support.waiting import until

pytestmark = pytest.mark.asyncio
CHAT, GENERATE = "/api/chat", "/api/generate"
PATHS = pytest.mark.parametrize("path", [CHAT, GENERATE])
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]
UNSTEADY = ("created_at", "total_duration")


def body(path, **fields):
    start = {"messages": [{"role": "user", "content": "A cat"}]} if path == CHAT else {"prompt": "A cat"}
    return {"model": "stories", **start, **fields}


async def whole(application, path, **fields):
    async with client(application) as http:
        response = await http.post(path, json=body(path, stream=False, **fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def lines(application, path, **fields):
    """Of a stream, which is what requests get by default."""
    async with client(application) as http:
        response = await http.post(path, json=body(path, **fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    data = [json.loads(line) for line in response.text.splitlines()]
    assert [line["done"] for line in data] == [False] * (len(data) - 1) + [True]
    return data


def put_together(stream):
    """The whole answer, of the lines of a stream."""
    created = dict(stream[-1])
    parts = [line.get("message", line) for line in stream]
    text = "message" if "message" in created else None
    target = created[text] if text else created
    for name in ("content", "response", "thinking"):
        value = "".join(part.get(name, "") for part in parts)
        if value or name in target:
            target[name] = value
    for name in ("tool_calls",):
        if calls := [call for part in parts for call in part.get(name, ())]:
            target[name] = calls
    if logprobs := [entry for line in stream for entry in line.get("logprobs", ())]:
        created["logprobs"] = logprobs
    return created


def steady(answer):
    for call in answer.get("message", {}).get("tool_calls", ()):
        call["id"] = ""
    return {name: value for name, value in answer.items() if name not in UNSTEADY}


@PATHS
async def test_whole_answer_has_text_and_counts(path):
    engine = FakeEngine(cached_n=2)
    reply = await whole(engine, path, model="stories:latest")
    assert reply["model"] == "stories:latest"
    assert abs(datetime.fromisoformat(reply["created_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    if path == CHAT:
        assert reply["message"] == {"role": "assistant", "content": TEXT}
    else:
        assert reply["response"] == TEXT
    assert (reply["done"], reply["done_reason"]) == (True, "stop")
    assert reply["prompt_eval_count"] == len(engine.seen[0].prompt)
    assert reply["eval_count"] == len(engine.reply) + 1
    assert (reply["prompt_eval_duration"], reply["eval_duration"]) == (2_000_000, 3_000_000)
    assert reply["total_duration"] > 0
    assert reply["load_duration"] == 0
    assert reply["timings"]["cached_n"] == 2
    assert "warnings" not in reply
    assert ("context" in reply) == (path == GENERATE)


@PATHS
async def test_stream_is_the_default_and_adds_up_to_the_whole_answer(path):
    actual = await lines(FakeEngine(cached_n=2), path)
    assert len(actual) == len(ids(TEXT)) + 1
    assert all(
        set(line) == {"model", "created_at", "done", *(["message"] if path == CHAT else ["response"])}
        for line in actual[:-1]
    )
    assert steady(put_together(actual)) == steady(await whole(FakeEngine(cached_n=2), path))
    null = await lines(FakeEngine(), path, stream=None)
    assert put_together(null)["done_reason"] == "stop"


@PATHS
@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"num_predict": 3}, "length", " there was a"),
        ({"stop": "little"}, "stop", " there was a "),
        ({"stop": ["garden", "cat"]}, "stop", " there was a little "),
    ],
)
async def test_done_reason_says_why_generation_ended(path, options, reason, text):
    reply = await whole(FakeEngine(), path, options=options)
    assert reply["done_reason"] == reason
    assert put_together([reply])["message" if path == CHAT else "response"] in (
        text,
        {"role": "assistant", "content": text},
    )
    assert put_together(await lines(FakeEngine(), path, options=options))["done_reason"] == reason


async def test_thinking_and_calls_have_fields_of_their_own():
    text = f"<think>Hm.</think>\nLet me see.\n{CALLS['hermes']}"
    reply = await whole(app(answering(text), QWEN), CHAT, tools=TOOLS, think=True)
    message = reply["message"]
    assert (message["thinking"], message["content"]) == ("Hm.", "Let me see.")
    assert [call["function"] for call in message["tool_calls"]] == [
        {"index": 0, "name": "get_weather", "arguments": VALUE},
        {"index": 1, "name": "now", "arguments": {}},
    ]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    assert reply["done_reason"] == "stop"
    actual = await lines(app(answering(text), QWEN), CHAT, tools=TOOLS, think=True)
    assert steady(put_together(actual)) == steady(reply)
    assert "tool_calls" in actual[-2]["message"]


async def test_thinking_of_generate_is_next_to_the_response():
    text = "<think>Hm.</think>Yes."
    reply = await whole(app(answering(text), QWEN), GENERATE)
    assert (reply["thinking"], reply["response"]) == ("Hm.", "Yes.")
    actual = await lines(app(answering(text), QWEN), GENERATE)
    assert steady(put_together(actual)) == steady(reply)


async def test_truncated_calls_get_a_warning():
    text = '<tool_call>\n{"name": "now", "arguments": {"a": [1, 2'
    reply = await whole(app(answering(text), QWEN), CHAT, tools=TOOLS, options={"num_predict": 40})
    (call,) = reply["message"]["tool_calls"]
    assert call["function"]["arguments"] == {}
    assert reply["warnings"] == ["tool_calls[0]: the model did not write a JSON object, so it is empty"]


@PATHS
async def test_every_token_has_log_probabilities_on_request(path):
    request_body = {"logprobs": True, "top_logprobs": 2, "options": {"return_tokens": True}}
    reply = await whole(FakeEngine(), path, **request_body)
    assert [entry["token"] for entry in reply["logprobs"]][:2] == [" there", " was"]
    assert len(reply["logprobs"]) == len(ids(TEXT))
    assert reply["tokens"] == ids(TEXT)
    first = reply["logprobs"][0]
    assert set(first) == {"token", "logprob", "bytes", "top_logprobs"}
    assert [other["logprob"] for other in first["top_logprobs"]] == [-0.5, -1.5]
    assert steady(put_together(await lines(FakeEngine(), path, **request_body))) == steady(reply)


@pytest.mark.parametrize(
    ("path", "name", "empty"),
    [(CHAT, "messages", None), (CHAT, "messages", []), (GENERATE, "prompt", None), (GENERATE, "prompt", "")],
)
async def test_request_without_a_prompt_generates_nothing(path, name, empty):
    engine = FakeEngine()
    loaded = await whole(engine, path, **{name: empty})
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    assert loaded.get("response", loaded.get("message")) in ("", {"role": "assistant", "content": ""})
    for keep_alive in (0, "0s"):
        engine.state = "ready"  # another application stopped it
        unloaded = await whole(engine, path, **{name: empty, "keep_alive": keep_alive})
        assert unloaded["done_reason"] == "unload"
        assert unloaded["warnings"] == ["keep_alive has no effect: models of --model stay loaded"]
    assert engine.seen == []


@PATHS
async def test_client_that_disconnects_a_stream_frees_the_engine(path):
    engine = FakeEngine(delay_s=0.01)
    application = make_app(engine)
    async with application.router.lifespan_context(application):
        live = Live(application, path, body(path))
        await live.until(" was")
        live.leave()
        await live.finish()
        await until(lambda: engine.left != [])
    assert '"done":true' not in live.sent.decode()


async def test_keep_alives_are_whitespace_before_the_next_line():
    engine = FakeEngine(prefill_s=0.3)
    application = make_app(engine, keep_alive_s=0.05)
    async with client(application) as http:
        response = await http.post(CHAT, json=body(CHAT))
    first, *rest = response.text.splitlines()
    assert first.startswith("  ")
    assert put_together([json.loads(line) for line in (first, *rest)])["message"]["content"] == TEXT


async def test_streams_of_several_clients_do_not_mix():
    engine = FakeEngine(delay_s=0.001)
    application = make_app(engine)
    async with client(application) as http:
        responses = await asyncio.gather(*(http.post(CHAT, json=body(CHAT)) for _ in range(4)))
    for response in responses:
        data = [json.loads(line) for line in response.text.splitlines()]
        assert put_together(data)["message"]["content"] == TEXT


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain", "image/png"])
async def test_json_of_any_content_type_is_read(kind):
    headers = {} if kind is None else {"content-type": kind}
    async with client(make_app()) as http:
        for path in (CHAT, GENERATE):
            content = json.dumps(body(path, stream=False))
            response = await http.post(path, content=content, headers=headers)
            assert response.status_code == 200, response.text
            assert response.json()["done"]
        broken = await http.post(GENERATE, content="model=stories", headers=headers)
        assert broken.status_code == 400
        assert broken.json()["error"].startswith("the body is not valid JSON")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("https://chat.example", 200),
        ("https://evil.example", 403),
        ("http://localhost:3000", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_cross_site_requests_with_other_content_types_are_refused(origin, status):
    engine = FakeEngine()
    content = json.dumps(body(GENERATE, stream=False))
    async with client(make_app(engine, cors_origins=["https://chat.example"])) as http:
        headers = {"content-type": "text/plain", "origin": origin}
        assert (await http.post(GENERATE, content=content, headers=headers)).status_code == status
        assert len(engine.seen) == (status == 200)


async def test_one_foreign_origin_of_two_is_refused():
    headers = [
        ("content-type", "text/plain"),
        ("origin", "http://localhost"),
        ("origin", "https://a.example"),
    ]
    async with client() as http:
        assert (await http.post(GENERATE, content="{}", headers=headers)).status_code == 403


# --- /api/embed and /api/embeddings

EMBED, OLDER = "/api/embed", "/api/embeddings"
LONG = "a cat " * 600


async def post(path, engine=None, **fields):
    async with client(engine) as http:
        response = await http.post(path, json={"model": "stories:latest", **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def test_each_text_gets_a_vector_of_length_1():
    reply = await post(EMBED, input=["a cat", "a dog"])
    assert reply["model"] == "stories:latest"
    assert [len(vector) for vector in reply["embeddings"]] == [N_EMBD, N_EMBD]
    assert all(math.hypot(*vector) == pytest.approx(1) for vector in reply["embeddings"])
    assert reply["prompt_eval_count"] == 6
    assert reply["total_duration"] > 0
    assert reply["load_duration"] == 0
    alone = await post(EMBED, input="a cat")
    assert alone["embeddings"] == reply["embeddings"][:1]
    short = (await post(EMBED, input="a cat", dimensions=3))["embeddings"][0]
    assert len(short) == 3
    assert math.hypot(*short) == pytest.approx(1)


async def test_older_embeddings_route_gives_the_unnormalized_vector():
    raw = (await post(OLDER, prompt="a cat"))["embedding"]
    assert math.hypot(*raw) > 1.5
    unit = (await post(EMBED, input="a cat"))["embeddings"][0]
    assert [x / math.hypot(*raw) for x in raw] == pytest.approx(unit, abs=1e-6)


async def test_overlong_texts_are_truncated_only_on_request_with_a_warning():
    reply = await post(EMBED, input=LONG, truncate=True)
    assert reply["prompt_eval_count"] == 512
    assert reply["warnings"][0].startswith("input: only the first 512 of ")
    older = await post(OLDER, prompt=LONG, truncate=True)
    assert older["warnings"][0].startswith("prompt: only the first 512 of ")
    async with client() as http:
        for more in ({}, {"truncate": False}, {"truncate": None}):
            body = {"model": "stories", "input": ["a", LONG], **more}
            assert refusal(await http.post(EMBED, json=body), EMBED)["param"] == "input[1]"
        refused = await http.post(OLDER, json={"model": "stories", "prompt": LONG})
        assert "truncate: true" in refusal(refused, OLDER)["message"]


async def test_embed_of_nothing_only_loads_the_model():
    engine = FakeEngine()
    assert await post(EMBED, engine, input=[]) == {"model": "stories:latest", "embeddings": []}
    assert await post(OLDER) == {"embedding": []}
    assert engine.works == []


@pytest.mark.parametrize(("path", "text"), [(EMBED, "input"), (OLDER, "prompt")])
async def test_fields_without_effect_are_named(path, text):
    reply = await post(path, **{text: "a"}, options={"num_ctx": 5, "x": None}, keep_alive="5m", foo=1)
    assert set(reply["warnings"]) == {
        "foo has no effect",
        "keep_alive has no effect: models of --model stay loaded",
        "options.num_ctx has no effect",
    }
    assert "warnings" not in await post(path, **{text: "a"}, keep_alive=-1)


async def test_client_disconnect_ends_an_embedding():
    engine = FakeEngine()
    engine.gate.clear()
    app = make_app(engine)
    async with app.router.lifespan_context(app):
        live = Live(app, EMBED, {"model": "stories", "input": "a"})
        while not engine.works:
            await asyncio.sleep(0)
        live.leave()
        await live.finish()
    assert engine.left == ["Embed"]
