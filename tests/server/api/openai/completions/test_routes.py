"""POST /v1/completions."""

from __future__ import annotations

import time

import pytest

from server.worker.errors import TaskFailed
from support.api.http import COMPLETIONS, client, error_of, events, text_of
from support.fakes.engine import TEXT, FakeEngine, ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio


async def test_whole_and_streamed_text_are_the_same():
    engine = FakeEngine("Zoë ate 🍕 — twice.\n")
    async with client(engine) as http:
        whole = await http.post(COMPLETIONS, json={"prompt": "Once"})
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})
    assert whole.status_code == stream.status_code == 200
    body = whole.json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["model"] == "stories"
    assert body["choices"] == [
        {"index": 0, "text": "Zoë ate 🍕 — twice.\n", "logprobs": None, "finish_reason": "stop"}
    ]
    assert stream.headers["content-type"].startswith("text/event-stream")
    chunks = events(stream.text)
    assert text_of(chunks) == "Zoë ate 🍕 — twice.\n"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert "�" not in stream.text
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_chunk_comes_last_and_others_say_null():
    async with client() as http:
        response = await http.post(
            COMPLETIONS,
            json={
                "prompt": "Once",
                "stream": True,
                "max_tokens": 3,
                "stream_options": {"include_usage": True},
            },
        )
    *chunks, last = events(response.text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert last["timings"]["predicted_n"] == 3


async def test_timings_are_in_the_last_chunk_and_in_the_whole_response():
    names = {"queue_ms", "prompt_n", "cached_n", "prompt_ms", "predicted_n", "predicted_ms", "n_batch"}
    names |= {"cache_n", "prompt_per_token_ms", "prompt_per_second"}
    names |= {"predicted_per_token_ms", "predicted_per_second"}
    async with client(FakeEngine(cached_n=1)) as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "n_batch": 7})).json()
        stream = events((await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})).text)
    assert set(whole["timings"]) == set(stream[-1]["timings"]) == names
    assert whole["timings"]["n_batch"] == 7
    assert whole["timings"]["cached_n"] == 1
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert stream[-1]["timings"]["n_batch"] == 256  # the default of 512, clamped to the engine's limit


async def test_several_prompts_and_choices_are_numbered_and_summed():
    def reply(request):
        return ids(f" {request.params.seed} {len(request.prompt)}")

    engine = FakeEngine(reply)
    body = {"prompt": ["One", [5, 6, 7, 8]], "n": 2, "seed": 40}
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = await http.post(
            COMPLETIONS, json={**body, "stream": True, "stream_options": {"include_usage": True}}
        )
    texts = [choice["text"] for choice in whole["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    one = len(tokenizer().encode("One"))
    assert texts == [f" 40 {one}", f" 41 {one}", " 40 4", " 41 4"]
    chunks = events(stream.text)
    assert [text_of(chunks, i) for i in range(4)] == texts
    finished = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(finished) == [0, 1, 2, 3]
    made = sum(len(ids(text)) + 1 for text in texts)  # and one end of text each
    for usage in (whole["usage"], chunks[-1]["usage"]):
        assert usage["prompt_tokens"] == one + 4
        assert usage["completion_tokens"] == made
        assert usage["total_tokens"] == one + 4 + made
    assert len({request.id for request in engine.seen}) == 8


async def test_cached_tokens_do_not_count_what_the_first_choice_left():
    class Sharing(FakeEngine):
        async def _run(self, stream):
            self.cached_n = 0 if stream.request.params.seed == 1 else len(stream.request.prompt) - 1
            await super()._run(stream)

    async with client(Sharing()) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": [5, 6, 7], "n": 3, "seed": 1})).json()
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert body["timings"]["cached_n"] == 4


async def test_echo():
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True})).json()
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True, "stream": True})
        ids_ = (await http.post(COMPLETIONS, json={"prompt": ids("Once"), "echo": True})).json()
        nothing = await http.post(COMPLETIONS, json={"prompt": "Once", "echo": True, "max_tokens": 0})
    assert whole["choices"][0]["text"] == ids_["choices"][0]["text"] == "Once" + TEXT
    assert text_of(events(stream.text)) == "Once" + TEXT
    assert nothing.json()["choices"][0] == {
        "index": 0,
        "text": "Once",
        "logprobs": None,
        "finish_reason": "length",
    }


async def test_echo_with_logprobs_begins_with_those_of_the_prompt():
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
        found = whole["choices"][index]["logprobs"]
        assert found["tokens"] == ["<s>", "A", " cat", " there", " was"]
        assert found["token_logprobs"] == [None] + [-0.5] * (len(prompt) + 1)
        assert found["top_logprobs"][0] is None
        assert all(len(top) == 2 for top in found["top_logprobs"][1:])
        text = whole["choices"][index]["text"]
        assert text == "A cat there was"
        assert [text[start:][:4] for start in found["text_offset"]][-2:] == [" the", " was"]
        streamed = [c["choices"][0]["logprobs"] for c in stream if c["choices"][0]["index"] == index]
        for name in found:
            assert [x for part in streamed if part for x in part[name]] == found[name]
        assert len(only["choices"][index]["logprobs"]["tokens"]) == len(prompt)
    assert whole["choices"][2]["logprobs"]["token_logprobs"][0] is None


async def test_a_prompt_that_cannot_be_scored_is_refused_before_the_stream_begins():
    engine = FakeEngine()
    engine.work_error = TaskFailed("ConfigError", "is no text")
    body = {"prompt": "Once", "echo": True, "logprobs": 1, "stream": True}
    async with client(engine) as http:
        assert error_of(await http.post(COMPLETIONS, json=body), 400)["param"] == "prompt"
    assert engine.seen == []


async def test_stop_strings_cut_the_text_and_end_the_session():
    engine = FakeEngine(eos=False)
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "stop": ["tle c", "zzz"]})).json()
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "stop": "tle c", "stream": True})
        missed = (await http.post(COMPLETIONS, json={"prompt": "Once", "stop": "garden.X"})).json()
    assert whole["choices"][0]["text"] == " there was a lit"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert text_of(events(stream.text)) == " there was a lit"
    assert len(engine.left) == 2
    assert whole["usage"]["completion_tokens"] == whole["timings"]["predicted_n"] == 5
    assert missed["choices"][0]["text"] == TEXT  # what was held back comes at the end
    assert missed["choices"][0]["finish_reason"] == "length"


async def test_stop_token_ids_are_no_part_of_the_text():
    little = ids(" little")[0]
    async with client() as http:
        body = (
            await http.post(
                COMPLETIONS, json={"prompt": "Once", "stop_token_ids": [little], "return_tokens": True}
            )
        ).json()
    choice = body["choices"][0]
    assert choice["text"] == " there was a"
    assert choice["tokens"] == ids(" there was a")
    assert choice["finish_reason"] == "stop"


async def test_logprobs():
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 2, "max_tokens": 3})).json()
        zero = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 0, "max_tokens": 3})).json()
        stream = await http.post(
            COMPLETIONS, json={"prompt": "Once", "logprobs": 2, "max_tokens": 3, "stream": True}
        )
    found = whole["choices"][0]["logprobs"]
    assert found["tokens"] == [" there", " was", " a"]
    assert found["token_logprobs"] == [-0.5, -0.5, -0.5]
    assert found["text_offset"] == [0, 6, 10]
    assert [list(top.values()) for top in found["top_logprobs"]] == [[-0.5, -1.5]] * 3
    assert zero["choices"][0]["logprobs"]["top_logprobs"] is None
    parts = [c["logprobs"] for chunk in events(stream.text) for c in chunk["choices"] if c["logprobs"]]
    for name, value in found.items():
        assert [x for part in parts for x in part[name]] == value


async def test_logprobs_of_parts_of_characters():
    text = "ß🍕"
    async with client(FakeEngine(text)) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", "logprobs": 0})).json()
    choice = body["choices"][0]
    assert choice["text"] == text
    parts = choice["logprobs"]["tokens"]
    assert all(part.startswith("bytes:\\x") for part in parts)
    assert bytes.fromhex("".join(parts).replace("bytes:", "").replace("\\x", "")).decode() == text


async def test_unknown_and_idle_fields_are_named():
    body = {
        "prompt": "Once",
        "user": "me",
        "topp": 1,
        "metadata": {},
        "store": False,
        "suffix": "",
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["", "zz"],
        "stream_options": {"include_usage": True},
        "max_tokens": 100_000,
    }
    async with client() as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        stream = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
        clean = (await http.post(COMPLETIONS, json={"prompt": "Once"})).json()
    warned = {warning.split()[0].rstrip(":") for warning in whole["warnings"]}
    assert warned == {"user", "topp", "top_p", "stop", "stream_options", "max_tokens"}
    assert {w.split()[0].rstrip(":") for w in stream[-1]["warnings"]} == warned - {"stream_options"}
    assert "warnings" not in clean


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suffix", " end"),
        ("tools", [{"type": "function"}]),
        ("grammar", "root ::= 'a'"),  # what that is instead: not GBNF
    ],
)
async def test_what_we_do_not_do_is_refused(field, value):
    engine = FakeEngine()
    async with client(engine) as http:
        response = await http.post(COMPLETIONS, json={"prompt": "Once", field: value})
    assert error_of(response, 400)["param"] == field
    assert engine.seen == []


async def test_best_of_shows_the_likeliest_per_token_and_counts_all():
    words = [" dog", " cat", " big cat", " red dog"]
    scores = {ids(" cat")[0]: -0.1, ids(" big")[0]: -0.2, ids(" dog")[0]: -2.0}
    engine = FakeEngine(lambda request: ids(words[request.params.seed - 5]))
    engine.logprob_of = lambda id: scores.get(id, -0.3)
    body = {"prompt": "Once", "best_of": 4, "n": 2, "seed": 5}
    async with client(engine) as http:
        whole = (await http.post(COMPLETIONS, json=body)).json()
        for wrong in ({"stream": True}, {"best_of": 1}):
            refused = await http.post(COMPLETIONS, json={**body, **wrong})
            assert error_of(refused, 400)["param"] == "best_of"
    assert [(c["index"], c["text"]) for c in whole["choices"]] == [(0, " cat"), (1, " big cat")]
    assert all(choice["logprobs"] is None for choice in whole["choices"])
    assert whole["usage"]["completion_tokens"] == sum(len(ids(word)) + 1 for word in words)


async def test_empty_prompts_begin_with_the_first_token():
    engine = FakeEngine()
    async with client(engine) as http:
        assert (await http.post(COMPLETIONS, json={"prompt": ""})).status_code == 200
        assert (await http.post(COMPLETIONS, json={"prompt": "<s>"})).status_code == 200
        assert (await http.post(COMPLETIONS, json={"prompt": "  \n"})).status_code == 200
        error_of(await http.post(COMPLETIONS, json={"prompt": []}), 400)
        error_of(await http.post(COMPLETIONS, json={"prompt": None}), 400)
    assert engine.seen[0].prompt == [tokenizer().bos_id]


async def test_a_prompt_must_leave_room_for_one_token():
    async with client(FakeEngine(n_ctx=16)) as http:
        fits = await http.post(COMPLETIONS, json={"prompt": [9] * 15})
        for n in (16, 17, 5000):
            error = error_of(await http.post(COMPLETIONS, json={"prompt": [9] * n}), 400)
            assert error["code"] == "context_length_exceeded"
            assert f"{n} tokens" in error["message"]
            assert "16" in error["message"]
            assert (error["n_prompt_tokens"], error["n_ctx"]) == (n, 16)
            assert error["type"] == "exceed_context_size_error"
    assert fits.status_code == 200


async def test_a_text_that_cannot_fit_is_not_tokenised():
    engine = FakeEngine(n_ctx=16)

    class Untouchable:
        def __getattr__(self, name):
            assert name != "encode", "a text beyond all bounds was tokenised"
            return getattr(tokenizer(), name)

    engine.tokenizer = Untouchable()
    async with client(engine) as http:
        error = error_of(await http.post(COMPLETIONS, json={"prompt": "word " * 100_000}), 400)
    assert error["code"] == "context_length_exceeded"
    assert "16" in error["message"]


async def test_timeout_keeps_the_text_so_far():
    engine = FakeEngine(delay_s=0.05)
    async with client(engine) as http:
        started = time.monotonic()
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", "timeout_ms": 170})).json()
    assert started * 1000 + 170 <= engine.seen[0].deadline_ms <= time.monotonic() * 1000 + 170
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert TEXT.startswith(choice["text"])
    assert len(choice["text"]) < len(TEXT)
    assert any(warning.startswith("timeout_ms") for warning in body["warnings"])


async def test_the_servers_own_time_limit_cannot_be_raised():
    engine = FakeEngine()
    async with client(make_app(engine, request_timeout_s=1.0)) as http:
        before = time.monotonic() * 1000
        await http.post(COMPLETIONS, json={"prompt": "Once", "timeout_ms": 60_000})
        await http.post(COMPLETIONS, json={"prompt": "Once"})
        after = time.monotonic() * 1000
    assert all(before + 1000 <= request.deadline_ms <= after + 1000 for request in engine.seen)


async def test_a_failing_engine_tells_no_details():
    async with client(FakeEngine(fail_after=2)) as http:
        response = await http.post(COMPLETIONS, json={"prompt": "Once"})
        stream = await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})
        early = await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True, "max_tokens": 1})
    error = error_of(response, 500)
    assert error["code"] == "internal_error"
    assert response.headers["x-should-retry"] == "false"
    chunks = events(stream.text)
    assert chunks[-1]["error"]["code"] == "internal_error"
    assert text_of(chunks[:-1]) == " there was"
    for text in (response.text, stream.text):
        assert "secret" not in text
        assert "0x7f" not in text
    assert early.status_code == 200


async def test_an_error_before_the_first_token_has_its_own_status():
    async with client(FakeEngine(fail_after=0)) as http:
        response = await http.post(COMPLETIONS, json={"prompt": "Once", "stream": True})
    assert error_of(response, 500)["type"] == "server_error"


async def test_a_full_queue_is_429():
    engine = FakeEngine()
    engine.full = True
    async with client(engine) as http:
        for extra in ({}, {"stream": True}, {"n": 2}, {"n": 2, "stream": True}):
            response = await http.post(COMPLETIONS, json={"prompt": "Once", **extra})
            error = error_of(response, 429)
            assert error["code"] == "queue_full"
            assert response.headers["retry-after"] == "3"
            assert response.headers["x-should-retry"] == "true"
        metrics = (await http.get("/metrics")).text
    assert 'ggserve_queue_rejections_total{model="stories"} 4.0' in metrics


async def test_many_choices_do_not_hold_more_places_than_there_are():
    class Counting(FakeEngine):
        most = 0

        async def _run(self, stream):
            self.most = max(self.most, len(self._streams))
            await super()._run(stream)

    engine = Counting(delay_s=0.001)
    async with client(make_app(engine, parallel=3)) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": "Once", "n": 8})).json()
    assert len(body["choices"]) == 8
    assert {choice["text"] for choice in body["choices"]} == {TEXT}
    assert engine.most == 3
