"""Lines of Ollama's API by themselves, and its errors; test_routes.py compares streams and whole answers."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.types import Timings, Token
from server.api.ollama.formatter import OllamaFormatter, answer
from server.api.ollama.schema import OllamaChatRequest, OllamaGenerateRequest
from server.chat.output import OutputDelta
from server.errors import ApiError
from server.generation.job import timings_reply
from server.generation.output_processor import SequenceEnd
from server.generation.request_context import AccessRecord, RequestContext
from support.api.http import JSON, client
from support.api.routes import refusal
from support.fakes.engine import FakeEngine, make_app

CHAT = OllamaChatRequest.model_validate({"model": "m:latest", "messages": [{"role": "user", "content": "x"}]})
GENERATE = OllamaGenerateRequest.model_validate({"model": "m", "prompt": "x"})
PATH = "/api/generate"
BODY = {"model": "stories", "prompt": "A cat"}
KEY = {"authorization": "Bearer sesame"}
LATIN = "application/json; charset=latin-1"


def formatter(body: Any = CHAT, end: SequenceEnd = SequenceEnd.LENGTH) -> OllamaFormatter:
    """Of a job with one sequence that has ended."""
    sequence = SimpleNamespace(
        timings=Timings(prompt_n=2, prompt_ms=1.5, predicted_n=3, predicted_ms=2.0),
        end=end,
        end_token=Token(7),
        request=SimpleNamespace(prompt=[1, 2]),
        token_ids=[5, 6],
    )
    job: Any = SimpleNamespace(
        context=RequestContext(make_app().state.ggserve, AccessRecord("id")),
        counts=lambda: SimpleNamespace(prompt=2, generated=3),
        timings=lambda: timings_reply(sequence.timings),
        sequences=[sequence],
        started=time.monotonic(),
    )
    return OllamaFormatter(job, body)


def ended(formatter: OllamaFormatter) -> Any:
    """The last line."""
    return json.loads(formatter.finish(formatter.job.sequences[0], last=True))


def test_answer_of_generate_is_text_alongside_its_thinking() -> None:
    line = answer(GENERATE, OutputDelta("text", "thought"))
    assert line.pop("created_at").endswith("Z")
    assert line == {"model": "m", "response": "text", "thinking": "thought"}
    assert "thinking" not in answer(GENERATE, OutputDelta("text"))


def test_answer_of_chat_is_a_message_with_its_calls() -> None:
    assert answer(CHAT, OutputDelta("text"))["message"] == {"role": "assistant", "content": "text"}
    calls = ({"id": "1"}, {"id": "2"})
    assert answer(CHAT, OutputDelta("", "thought"), *calls)["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": "thought",
        "tool_calls": calls,
    }


@pytest.mark.parametrize("end", SequenceEnd)
def test_end_says_length_only_if_the_limit_was_reached(end: SequenceEnd) -> None:
    line = ended(formatter(GENERATE, end))
    assert (line["done"], line["response"]) == (True, "")
    assert line["done_reason"] == ("length" if end is SequenceEnd.LENGTH else "stop")


def test_end_counts_durations_in_nanoseconds() -> None:
    line = ended(formatter())
    assert (line["prompt_eval_count"], line["eval_count"]) == (2, 3)
    assert (line["prompt_eval_duration"], line["eval_duration"]) == (1_500_000, 2_000_000)
    assert line["total_duration"] >= 0
    assert not {"context", "tokens", "warnings"} & line.keys()


def test_end_with_context_has_the_token_that_ended_the_text() -> None:
    chat_formatter = formatter(GENERATE)
    assert ended(chat_formatter)["context"] == [1, 2, 5, 6, 7]
    chat_formatter.job.sequences[0].end_token = None
    assert ended(chat_formatter)["context"] == [1, 2, 5, 6]


def test_error_is_a_line_of_its_own() -> None:
    line = formatter().error(ApiError(400, "is required", param="model"))
    assert line.endswith(b"\n")
    assert json.loads(line) == {"error": "model: is required"}


# --- errors, wherever they come from


@pytest.mark.asyncio
@pytest.mark.parametrize("path", [PATH, "/api/chat", "/api/show", "/api/embed"])
async def test_refusals_of_every_layer_are_plain_text(path):
    app = make_app(api_key=["sesame"], max_body_bytes=1024)
    async with client(app) as http:
        assert "API key" in refusal(await http.post(path, json=BODY), path, 401)["message"]
        large = await http.post(path, json={**BODY, "x": "y" * 2000}, headers=KEY)
        assert "bytes" in refusal(large, path, 413)["message"]
        foreign = await http.post(path, content=b"{}", headers={**KEY, "origin": "https://evil.example"})
        assert "--cors-origins" in refusal(foreign, path, 403)["message"]
        other = await http.post(path, content=b"{}", headers={**KEY, "content-type": LATIN})
        assert "UTF-8 only" in refusal(other, path, 415)["message"]
        broken = await http.post(path, content=b"{", headers={**KEY, **JSON})
        assert refusal(broken, path)["message"].startswith("the body is not valid JSON")
        refusal(await http.put(path, json=BODY, headers=KEY), path, 405)
        refusal(await http.post("/api/nothing", json=BODY, headers=KEY), path, 404)
    async with client(app, host="evil.example") as http:
        refusal(await http.post(path, json=BODY, headers=KEY), path, 403)


@pytest.mark.asyncio
@pytest.mark.parametrize("path", [PATH, "/api/chat", "/api/show", "/api/embeddings"])
@pytest.mark.parametrize("name", ["llama3.2", "llama3.2:latest", "stories:7b"])
async def test_unknown_model_error_has_the_wording_clients_look_for(path, name):
    async with client() as http:
        response = await http.post(path, json={"model": name})
    assert (response.status_code, response.json()) == (404, {"error": f"model '{name}' not found"})


@pytest.mark.asyncio
async def test_full_queue_and_unavailable_model_have_their_status():
    engine = FakeEngine()
    async with client(engine) as http:
        engine.full = True
        response = await http.post(PATH, json=BODY)
        assert "queue" in refusal(response, PATH, 429)["message"]
        assert response.headers["retry-after"] == "3"
        engine.full = False
        engine.state = "loading"
        assert "is loading" in refusal(await http.post(PATH, json=BODY), PATH, 503)["message"]


@pytest.mark.asyncio
async def test_failure_in_the_middle_of_a_stream_is_its_last_line():
    async with client(FakeEngine(fail_after=2)) as http:
        response = await http.post(PATH, json=BODY)
    assert response.status_code == 200
    *before, last = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line["response"] for line in before) == " there was"
    assert set(last) == {"error"}
    assert last["error"].startswith("internal error (request ")
    assert "secret" not in response.text
