"""A job runs its sequences to their end: stops, choices, failures, full queues."""

from __future__ import annotations

import time

import pytest

from engine.types import Timings
from server.generation.job import timings_reply, total_timings
from support.api.http import COMPLETIONS, client, error_of, events, text_of
from support.fakes.engine import TEXT, FakeEngine, ids, make_app

pytestmark = pytest.mark.asyncio


async def test_cached_tokens_leave_out_what_the_first_choice_cached():
    class Sharing(FakeEngine):
        async def _run(self, stream):
            self.cached_n = 0 if stream.request.params.seed == 1 else len(stream.request.prompt) - 1
            await super()._run(stream)

    async with client(Sharing()) as http:
        body = (await http.post(COMPLETIONS, json={"prompt": [5, 6, 7], "n": 3, "seed": 1})).json()
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert body["timings"]["cached_n"] == 4


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


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": ["tle c", "zzz"], "logprobs": 1},
        {"max_tokens": 7, "return_tokens": True},
        {"n_probs": 2, "timings_per_token": True},
        {"stop_token_ids": [ids(" little")[0]]},
    ],
    ids=str,
)
async def test_step_of_several_tokens_gives_the_same_events_as_single_steps(fields):
    answers = []
    for step in (1, 5):
        async with client(FakeEngine(step=step)) as http:
            body = {"prompt": "Once", "stream_options": {"include_usage": True}, **fields}
            whole = (await http.post(COMPLETIONS, json={**body, "stream_options": None})).json()
            streamed = events((await http.post(COMPLETIONS, json={**body, "stream": True})).text)
        for answer in (whole, *streamed):
            del answer["id"], answer["created"]
            answer.get("timings", {}).clear()
        answers.append((whole, streamed))
    assert answers[0] == answers[1]


async def test_best_of_returns_the_most_likely_and_counts_all():
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


async def test_timeout_returns_the_text_so_far():
    engine = FakeEngine(delay_s=0.05)
    async with client(engine) as http:
        started = time.monotonic()
        fields = {"prompt": "Once", "timeout_ms": 170}
        body = (await http.post(COMPLETIONS, json=fields)).json()
        stream = events((await http.post(COMPLETIONS, json={**fields, "stream": True})).text)
    assert started * 1000 + 170 <= engine.seen[0].deadline_ms <= time.monotonic() * 1000 + 170
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert TEXT.startswith(choice["text"])
    assert len(choice["text"]) < len(TEXT)
    assert stream[-1]["choices"][0]["finish_reason"] == "length"
    for end in (body, stream[-1]):
        assert [warning.split(":")[0] for warning in end["warnings"]] == ["timeout_ms"]


async def test_engine_failure_reveals_no_details():
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


async def test_many_choices_run_only_as_many_at_once_as_there_are_slots():
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


async def test_rates_leave_out_the_first_token_of_each_sequence():
    one = timings_reply(Timings(prompt_n=4, prompt_ms=8.0, predicted_n=5, predicted_ms=100.0, cached_n=3))
    assert (one["prompt_per_token_ms"], one["prompt_per_second"]) == (2.0, 500.0)
    assert (one["predicted_per_token_ms"], one["predicted_per_second"]) == (25.0, 40.0)
    assert (one["cache_n"], one["cached_n"]) == (3, 3)
    two = total_timings(
        [Timings(predicted_n=5, predicted_ms=100.0), Timings(predicted_n=1, predicted_ms=0.0)]
    )
    assert (two["predicted_n"], two["predicted_per_second"]) == (6, 40.0)
    none = timings_reply(Timings(predicted_n=1))
    assert none["predicted_per_second"] == none["predicted_per_token_ms"] == none["prompt_per_second"] == 0
