"""Lines of Ollama's API by themselves; test_routes.py compares streams and whole answers."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.types import Timings, Token
from server.api.ollama.formatter import OllamaFormatter, answer
from server.api.ollama.schema import OllamaChatRequest, OllamaGenerateRequest
from server.errors import ApiError
from server.generation.output_processor import SequenceEnd
from server.generation.request_context import AccessRecord, RequestContext
from support.fakes.engine import make_app

CHAT = OllamaChatRequest.model_validate({"model": "m:latest", "messages": [{"role": "user", "content": "x"}]})
GENERATE = OllamaGenerateRequest.model_validate({"model": "m", "prompt": "x"})


def formatter(body: Any = GENERATE, end: SequenceEnd = SequenceEnd.LENGTH, **options: Any) -> OllamaFormatter:
    """Of a job with one sequence that has ended."""
    sequence = SimpleNamespace(
        timings=Timings(prompt_n=2, prompt_ms=1.5, predicted_n=3, predicted_ms=2.0),
        end=end,
        end_token=Token(7),
        request=SimpleNamespace(prompt=[1, 2]),
    )
    job: Any = SimpleNamespace(
        context=RequestContext(make_app().state.ggserve, AccessRecord("id")),
        counts=lambda: SimpleNamespace(prompt=2, generated=3),
        sequences=[sequence],
        started=time.monotonic(),
    )
    return OllamaFormatter(job, body, **options)


def test_answer_of_generate_is_text_beside_its_thinking() -> None:
    line = answer(GENERATE, "text", "thought")
    assert line.pop("created_at").endswith("Z")
    assert line == {"model": "m", "response": "text", "thinking": "thought"}
    assert "thinking" not in answer(GENERATE, "text")


def test_answer_of_chat_is_a_message_with_calls_where_there_are_some() -> None:
    assert answer(CHAT, "text")["message"] == {"role": "assistant", "content": "text"}
    calls = [{"id": "1"}]
    assert answer(CHAT, "", "thought", calls)["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": "thought",
        "tool_calls": calls,
    }


@pytest.mark.parametrize("end", SequenceEnd)
def test_end_says_length_only_where_that_is_the_reason(end: SequenceEnd) -> None:
    line = json.loads(formatter(end=end).end())
    assert (line["done"], line["response"]) == (True, "")
    assert line["done_reason"] == ("length" if end is SequenceEnd.LENGTH else "stop")


def test_end_counts_durations_in_nanoseconds() -> None:
    line = json.loads(formatter().end())
    assert (line["prompt_eval_count"], line["eval_count"]) == (2, 3)
    assert (line["prompt_eval_duration"], line["eval_duration"]) == (1_500_000, 2_000_000)
    assert line["total_duration"] >= 0
    assert not {"context", "tokens", "warnings"} & line.keys()


def test_end_with_context_has_the_token_that_ended_the_text() -> None:
    made = formatter(with_context=True)
    made._tokens = [5, 6]
    assert json.loads(made.end())["context"] == [1, 2, 5, 6, 7]
    made.job.sequences[0].end_token = None
    assert json.loads(made.end())["context"] == [1, 2, 5, 6]


def test_error_is_a_line_of_its_own() -> None:
    line = formatter().error(ApiError(400, "is required", param="model"))
    assert line.endswith(b"\n")
    assert json.loads(line) == {"error": "model: is required"}
