"""Responses and their events."""

from __future__ import annotations

import json

import pytest

from support.api.http import Live, client, error_of
from support.api.named_events import THINKING, named_events, template
from support.api.responses import CALL, PLAIN, RESPONSES, TOOL, create, stream
from support.fakes.engine import TEXT, FakeEngine, make_app

pytestmark = pytest.mark.asyncio


def without_marks(response):
    """What does not differ from one response to the next."""
    output = [{**item, "id": "", "call_id": ""} for item in response["output"]]
    times = {"id": "", "created_at": 0, "completed_at": 0, "timings": None}
    return {**response, **times, "output": output}


async def test_whole_response_has_every_field():
    response = await create(None, metadata={"a": "b"}, top_p=0.5, max_output_tokens=99)
    assert response["id"].startswith("resp_")
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", "stories")
    (item,) = response["output"]
    assert item["id"].startswith("msg_")
    part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    assert item == {
        "id": item["id"],
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert response["timings"]["predicted_n"] == usage["output_tokens"]
    assert (response["metadata"], response["top_p"], response["temperature"]) == ({"a": "b"}, 0.5, 0.8)
    assert response["max_output_tokens"] == 99
    assert response["completed_at"] >= response["created_at"]
    assert "warnings" not in response


async def test_events_come_in_order_and_end_with_the_whole_response():
    events = await stream(None)
    kinds = [event["type"] for event in events]
    assert list(dict.fromkeys(kinds)) == PLAIN
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event.get("delta", "") for event in events) == TEXT
    assert events[-3]["part"]["text"] == TEXT
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    assert without_marks(events[-1]["response"]) == without_marks(await create(None))


async def test_reasoning_and_calls_are_items_of_their_own(tmp_path):
    app = make_app(FakeEngine("<think>well</think>" + CALL), chat_template=template(tmp_path, THINKING))
    events = await stream(app, tools=[TOOL])
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["id"].split("_")[0] for item in added] == ["rs", "fc", "fc"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done
    assert [item["id"] for item in done] == [item["id"] for item in added]
    assert done[0]["content"] == [{"type": "reasoning_text", "text": "well"}]
    assert [json.loads(item["arguments"]) for item in done[1:]] == [{"a": 1}, {}]
    assert len({item["call_id"] for item in done[1:]}) == 2
    open_items = 0
    for event in events:
        open_items += (event["type"] == "response.output_item.added") - (
            event["type"] == "response.output_item.done"
        )
        assert open_items in (0, 1)
    for index, item in enumerate(done[1:], 1):
        mine = [event for event in events if event.get("item_id") == item["id"]]
        assert "".join(event.get("delta", "") for event in mine) == item["arguments"]
        assert {event["output_index"] for event in mine} == {index}
    usage = events[-1]["response"]["usage"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
    app = make_app(FakeEngine("<think>well</think>" + CALL), chat_template=template(tmp_path, THINKING))
    assert without_marks(await create(app, tools=[TOOL])) == without_marks(events[-1]["response"])


async def test_response_cut_by_the_limit_is_incomplete():
    events = await stream(None, max_output_tokens=3)
    assert events[-1]["type"] == "response.incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] == 3


async def test_an_empty_answer_is_an_empty_message():
    response = await create(FakeEngine([]))
    assert [part["text"] for item in response["output"] for part in item["content"]] == [""]
    kinds = [event["type"] for event in await stream(FakeEngine([]))]
    assert kinds == [kind for kind in PLAIN if kind != "response.output_text.delta"]


async def test_include_logprobs_adds_the_most_likely_tokens():
    body = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = (await create(None, **body))["output"][0]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in whole) == TEXT
    assert {len(entry["top_logprobs"]) for entry in whole} == {2}
    events = await stream(None, **body)
    assert [entry for event in events if "delta" in event for entry in event["logprobs"]] == whole
    response = await create(None, top_logprobs=2)
    assert response["output"][0]["content"][0]["logprobs"] == []
    assert response["warnings"][0].startswith("top_logprobs has no effect")


async def test_stream_reports_progress_and_timings_like_llama_server():
    engine = FakeEngine(prefill_s=0.01, cached_n=1)
    events = await stream(engine, return_progress=True, timings_per_token=True, max_output_tokens=3)
    progress = [event for event in events if "prompt_progress" in event]
    assert {event["type"] for event in progress} == {"response.in_progress"}
    n = len(engine.seen[0].prompt)
    assert [event["prompt_progress"]["processed"] for event in progress] == [1, n // 2, n]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["timings"]["predicted_n"] for event in deltas] == [1, 2, 3]
    assert events[-1]["type"] == "response.completed"  # whatever it was: these clients wait for it
    assert events[-1]["response"]["status"] == "incomplete"
    assert events[-1]["timings"] == events[-1]["response"]["timings"]


async def test_return_tokens_adds_the_token_ids():
    whole = await create(None, return_tokens=True)
    end = (await stream(None, return_tokens=True))[-1]["response"]
    assert whole["tokens"] == end["tokens"] == FakeEngine().reply


async def test_stream_error_is_a_status_before_and_an_event_after_the_start():
    async with client(FakeEngine(fail_after=0)) as http:
        error_of(await http.post(RESPONSES, json={"input": "x", "stream": True}), 500)
    events = await stream(FakeEngine(fail_after=2))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == "internal_error"
    response = events[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert response["output"][0]["content"][0]["text"] == " there was"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_stream_error_after_only_keep_alives_is_an_event():
    """Clients want `response.created` first, whatever comes then."""
    app = make_app(FakeEngine(fail_after=0, prefill_s=0.2), keep_alive_s=0.05)
    live = Live(app, RESPONSES, {"input": "x", "stream": True})
    text = await live.finish()
    assert text.startswith(": keep-alive")
    kinds = [event["type"] for event in named_events(text)]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]
