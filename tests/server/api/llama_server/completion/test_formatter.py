"""The events of a streamed /completion, and picked fields."""

from __future__ import annotations

import pytest

from support.api.llama_server import FIRST, LAST, ask, stream
from support.fakes.engine import TEXT, FakeEngine, ids

pytestmark = pytest.mark.asyncio


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


async def test_response_fields_selects_the_fields():
    fields = ["content", "generation_settings/n_predict", "timings/predicted_n", "nothing", "content/x"]
    body = await ask({"prompt": "a", "n_predict": 2, "response_fields": fields})
    assert body == {
        "content": " there was",
        "generation_settings/n_predict": 2,
        "timings/predicted_n": 2,
    }
    assert set(await ask({"prompt": "a", "response_fields": []})) == LAST


async def test_stream_reports_progress_and_timings():
    engine = FakeEngine(cached_n=1, prefill_s=0.01)
    chunks = await stream(
        {"prompt": "Once upon a time there was", "return_progress": True, "timings_per_token": True}, engine
    )
    progress = [chunk for chunk in chunks if "prompt_progress" in chunk]
    n = len(engine.seen[0].prompt)
    assert [chunk["prompt_progress"]["processed"] for chunk in progress] == [1, n // 2, n]
    assert all(chunk["content"] == "" and chunk["tokens"] == [] for chunk in progress)
    assert all("timings" in chunk for chunk in chunks)


async def test_stream_error_is_its_last_event():
    chunks = await stream({"prompt": "Once"}, FakeEngine(fail_after=2))
    assert chunks[-1]["error"]["code"] == "internal_error"
    assert [chunk["stop"] for chunk in chunks[:-1]] == [False, False]
