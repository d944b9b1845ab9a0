"""Bad requests: always a 4xx in one shape, never a trace of us."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import path_of
from support.fake_engine import FakeEngine, make_app
from support.http import CHAT, COMPLETIONS, JSON, client, error_of, user

pytestmark = pytest.mark.asyncio

ROUTES = [COMPLETIONS, CHAT, "/tokenize", "/detokenize", "/apply-template"]
LEAKS = re.compile(r"/root|/work|/opt|\.py\b|Traceback|0x[0-9a-f]{6}|line \d+")

BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"5",
    b'"text"',
    b"true",
    b'{"prompt": "x"',
    b'{"prompt": "x",}',
    b"{'prompt': 'x'}",
    b'{"prompt": NaN, "messages": NaN, "content": NaN, "tokens": NaN}',
    b'{"prompt": "x", "temperature": Infinity}',
    b'{"prompt": "x", "temperature": 1e999}',
    b'{"x": ' * 10_000 + b"1" + b"}" * 10_000,
    b"[" * 10_000,
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\\ud800 x"}',
    b'{"\\udfff": 1}',
    b'\xef\xbb\xbf{"prompt": "x"}',
    b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "x", "temperature": ' + b"9" * 5000 + b"}",
    b"\x00",
    b'{"prompt": "a\x00b"}',
    b"%7B%7D",
]


@pytest.mark.parametrize("route", ROUTES)
async def test_bodies_that_are_no_request(route):
    engine = FakeEngine()
    async with client(engine) as http:
        for body in BODIES:
            response = await http.post(route, content=body, headers=JSON)
            error = error_of(response, 400)
            assert not LEAKS.search(response.text), response.text
            assert error["type"] == "invalid_request_error"
    assert engine.seen == []


async def test_what_is_odd_but_sound_is_taken():
    engine = FakeEngine()
    async with client(engine) as http:
        for body in (
            b'{"prompt": "a\\u0000b"}',
            b'{"prompt": "\\ud83c\\udf55"}',
            b'{"prompt": 5, "prompt": "the last one counts"}',
            '{"prompt": "\ufeffx\u2028"}'.encode(),
            b' \n{"prompt": "x", "temperature": null, "stop": null, "n": null}\n ',
        ):
            response = await http.post(COMPLETIONS, content=body, headers=JSON)
            assert response.status_code == 200, response.text
            json.loads(response.content.decode())
    assert len(engine.seen) == 5


INTEGERS = ["n", "max_tokens", "min_tokens", "logprobs", "seed", "top_k", "mirostat", "repeat_last_n"]
INTEGERS += ["batch_size", "n_batch", "timeout_ms"]
NUMBERS = [*INTEGERS, "temperature", "top_p", "min_p", "typical_p", "top_a", "tfs_z", "mirostat_tau"]
NUMBERS += ["mirostat_eta", "repeat_penalty", "frequency_penalty", "presence_penalty"]


@pytest.mark.parametrize("field", NUMBERS)
async def test_numbers_at_their_limits(field):
    """Either a clean refusal that names the field, or an engine request within its bounds."""
    values = [
        -(2**63),
        -(2**63) - 1,
        -2,
        -1,
        0,
        1,
        2,
        2**31 - 1,
        2**31,
        2**63,
        2**64,
        10**30,
        1e308,
        "5",
        True,
        [],
        {},
    ]
    async with client() as http:
        for value in values:
            response = await http.post(COMPLETIONS, json={"prompt": "Once", field: value})
            if response.status_code != 200:
                error = error_of(response, 400)
                assert error["param"] == field, (value, error)
            else:
                assert type(value) in (int, float)


WRONG = {
    "prompt": [5, True, {}, [[]], [1, "a"], ["a", 1], [["a"]], [-1], [1.5], [[1, -1]], [True], [2**31]],
    "model": [5, [], {}, ""],
    "stream": ["true", 1, []],
    "echo": ["yes", 1],
    "stop": [5, [5], {}, [["a"]], ["a"] * 65, "a" * 4097, ["x" * 3000] * 2],
    "stop_token_ids": [5, "5", ["5"], [-1], [1.0], [True], [1] * 1025, [2048]],
    "logit_bias": [5, [], {"a": 1}, {"-1": 1}, {"1": "x"}, {"1": 101}, {"1": True}, {"1": None}, {"2048": 1}],
    "stream_options": [5, [], {"include_usage": 5}],
    "ignore_eos": ["no", 0],
    "cache_prompt": ["no", 0],
    "return_tokens": [1, "x"],
}


@pytest.mark.parametrize("field", WRONG)
async def test_values_of_the_wrong_kind_are_named(field):
    engine = FakeEngine()
    async with client(engine) as http:
        for value in WRONG[field]:
            body = {"prompt": "Once", field: value}
            status = 404 if (field, value) == ("model", "") else 400
            error = error_of(await http.post(COMPLETIONS, json=body), status)
            assert error["param"].split(".")[0] == field, (value, error)
            assert len(error["message"]) < 500
    assert engine.seen == []


async def test_huge_counts_are_refused_before_work():
    bodies = [
        {"n": 10**9},
        {"max_tokens": 2**31},
        {"logprobs": 10**9},
        {"logit_bias": {str(i): 1 for i in range(100_000)}},
        {"stop": [str(i) for i in range(100_000)]},
        {"prompt": ["x"] * 17},
        {"stop_token_ids": list(range(100_000))},
        {"prompt": [0, 2048]},
    ]
    engine = FakeEngine()
    async with client(engine) as http:
        for body in bodies:
            response = await http.post(COMPLETIONS, json={"prompt": "Once", **body})
            assert error_of(response, 400)["param"] == next(iter(body))
        chat = await http.post(CHAT, json={"messages": user("x") * 5000})
        assert error_of(chat, 400)["param"] == "messages"
        fields = {f"f{i}": 1 for i in range(10_000)}
        warned = (await http.post(COMPLETIONS, json={"prompt": "Once", **fields})).json()["warnings"]
    assert len(warned) == 33
    assert len(engine.seen) == 1


async def test_large_inputs():
    engine = FakeEngine()
    async with client(engine) as http:
        for route, body in (
            (COMPLETIONS, {"prompt": [1] * 1_000_000}),
            (COMPLETIONS, {"prompt": "a" * 4_000_000}),
            (CHAT, {"messages": user("<|end|>" * 100_000)}),
            (CHAT, {"messages": user("a b " * 1000) * 1000}),
        ):
            error = error_of(await http.post(route, json=body), 400)
            assert error["code"] == "context_length_exceeded"
            assert "512" in error["message"]
        counted = await http.post("/tokenize", json={"content": "a cat " * 20_000})
        assert len(counted.json()["tokens"]) >= 20_000
        error_of(await http.post("/detokenize", json={"tokens": [1] * 1_000_000}), 400)
    assert engine.seen == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted(
    {
        *NUMBERS,
        *WRONG,
        "suffix",
        "best_of",
        "user",
        "tools",
        "messages",
        "chat_template_kwargs",
        "top_logprobs",
    }
)


async def test_any_json_is_answered():
    """Property: 200 or an error of the client's, always valid JSON, never a 5xx."""
    asked: list[tuple[str, dict]] = []

    @settings(max_examples=300, deadline=None, database=None)
    @given(
        route=st.sampled_from([COMPLETIONS, CHAT]),
        fields=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    )
    def gather(route, fields):
        asked.append((route, fields))

    gather()
    async with client(FakeEngine("x")) as http:
        for route, fields in asked:
            body = {"prompt": "Once", "messages": user("x"), **fields}
            content = json.dumps(body).encode()  # lone surrogates come out as escapes
            response = await http.post(route, content=content, headers=JSON)
            assert response.status_code in (200, 400, 404), (body, response.text)
            if response.status_code != 200:
                error_of(response, response.status_code)
            elif fields.get("stream") is not True:
                response.json()


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", COMPLETIONS, 405, "POST"),
        ("PUT", "/v1/models", 405, "GET"),
        ("POST", "/health", 405, "GET, HEAD"),
        ("PATCH", "/v1/requests/x", 405, "DELETE"),
        ("BREW", "/v1/models", 405, "GET"),
        ("GET", "/nothing", 404, None),
        ("POST", "/v1/completions/", 404, None),
        ("GET", "//v1/models", 404, None),
        ("GET", "/%2e%2e/etc/passwd", 404, None),
        ("GET", "/static/..%2f..%2fetc/passwd", 404, None),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404, None),
        ("GET", "/v1/models/%00", 404, None),
        ("DELETE", "/v1/requests/%2e%2e", 404, None),
    ],
)
async def test_wrong_routes_have_the_same_shape(method, path, status, allow):
    import httpx

    async with client() as http:
        url = httpx.URL("http://localhost", raw_path=path.encode())
        response = await http.request(
            method, url, json={} if method in ("POST", "PUT", "PATCH", "BREW") else None
        )
    error_of(response, status)
    if allow is not None:
        assert sorted(response.headers["allow"].split(", ")) == sorted(allow.split(", "))
    assert not LEAKS.search(response.text)


async def test_unknown_models():
    async with client() as http:
        for route, body in ((COMPLETIONS, {"prompt": "x"}), (CHAT, {"messages": user("x")})):
            error = error_of(await http.post(route, json={"model": "gpt-4", **body}), 404)
            assert error["code"] == "model_not_found"
            assert error["param"] == "model"
            assert "stories" in error["message"]


async def test_a_model_must_be_named_among_several():
    app = make_app({name: FakeEngine(f" {name}", name=name) for name in ("one", "two")})
    async with client(app) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "x"}), 400)
        named = (await http.post(COMPLETIONS, json={"prompt": "x", "model": "two"})).json()
    assert error["param"] == "model"
    assert named["choices"][0]["text"] == " two"
    assert named["model"] == "two"


@pytest.mark.parametrize(
    ("state", "code", "retry"),
    [
        ("loading", "model_loading", "true"),
        ("failed", "engine_failed", "false"),
        ("stopped", "shutting_down", "true"),
    ],
)
async def test_engines_that_cannot_answer(state, code, retry):
    engine = FakeEngine()
    engine.progress = 0.42
    async with client(engine) as http:
        engine.state = state
        response = await http.post(COMPLETIONS, json={"prompt": "x"})
    assert error_of(response, 503)["code"] == code
    assert response.headers["x-should-retry"] == retry
    assert ("retry-after" in response.headers) == (retry == "true")
    assert "/dev/secret" not in response.text


async def test_a_fault_of_ours_is_a_500_without_details(caplog):
    class Broken(FakeEngine):
        def generate(self, request):
            raise RuntimeError("secret detail")

    async with client(Broken()) as http:
        whole = await http.post(COMPLETIONS, json={"prompt": "x"}, headers={"x-request-id": "abc-1"})
        stream = await http.post(COMPLETIONS, json={"prompt": "x", "stream": True})
    for response in (whole, stream):
        error = error_of(response, 500)
        assert error["type"] == "server_error"
        assert "secret" not in response.text
    assert "abc-1" in whole.text
    assert "secret detail" in caplog.text


async def test_path_of():
    assert path_of(("body", "messages", 3, "content")) == "messages[3].content"
    assert path_of(("body",)) is None
    assert path_of(("query", "model")) == "model"
