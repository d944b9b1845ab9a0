"""`ggserve serve` without --model: what the default model answers to the questions of README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.real_models import smollm2_path
from support.server_process import ServerProcess

MODEL = "smollm2-135m-instruct"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The current weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def api() -> Iterator[openai.OpenAI]:
    smollm2_path()  # the server would take the bundled model if it cannot be had
    with (
        ServerProcess("--threads", "1", "--context-size", "2048", bundled=False) as server,
        openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=280) as client,
    ):
        yield client


def ask(api: openai.OpenAI, text: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    reply = api.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=100, **fields
    )
    return reply.choices[0].message


def test_the_default_model_is_smollm2(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == [MODEL]


def test_a_question_is_answered(api: openai.OpenAI) -> None:
    assert ask(api, "What is 2 + 2?").content == "The answer is 4."
    answer = ask(api, "What is gravity? Answer in one sentence.").content
    assert answer.startswith(
        "Gravity is a fundamental concept in physics that describes the force of gravity"
    )


def test_a_tool_is_called_with_its_argument(api: openai.OpenAI) -> None:
    message = ask(api, "What is the weather in Paris?", tools=[TOOL], tool_choice="required")
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_json_answer_contains_the_facts_of_the_question(api: openai.OpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    message = ask(api, "Anna is 31 years old. Give her data as JSON.", response_format=schema)
    assert json.loads(message.content) == {"name": "Anna", "age": 31}
