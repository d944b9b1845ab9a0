"""Responses and Messages by the official clients, a real server process and the bundled model."""

from __future__ import annotations

import json
from typing import Literal

import anthropic
import openai
import pydantic
import pytest

from support.server_process import ServerProcess

STORY = [{"role": "user", "content": "Tell me a story about a little dog."}]


class Animal(pydantic.BaseModel):
    """Finite, so that no answer is too long."""

    kind: Literal["dog", "cat"]
    legs: Literal[2, 4]
    tame: bool


PARAMETERS = {"type": "object", "properties": {"tame": {"type": "boolean"}}, "required": ["tame"]}


@pytest.fixture(scope="module")
def server():
    with ServerProcess("--threads", "1") as process:
        yield process
        assert process.end() == 0


@pytest.fixture(scope="module")
def responses(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as api:
        yield api.responses


@pytest.fixture(scope="module")
def messages(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60) as api:
        yield api.messages


def test_streamed_response_equals_the_whole_one_and_the_next_reuses_its_prompt(responses):
    body = {"model": "stories", "input": STORY, "max_output_tokens": 24, "temperature": 0}
    whole = responses.create(**body)
    streamed = list(responses.create(stream=True, **body))
    assert whole.status == "incomplete"
    assert "".join(e.delta for e in streamed if e.type == "response.output_text.delta") == whole.output_text
    last = streamed[-1].response
    assert last.output_text == whole.output_text
    assert last.usage.output_tokens == whole.usage.output_tokens == 24
    assert last.usage.input_tokens_details.cached_tokens > 0
    after = responses.create(
        model="stories", input="And then?", previous_response_id=whole.id, max_output_tokens=4
    )
    assert after.usage.input_tokens > whole.usage.total_tokens
    assert after.usage.input_tokens_details.cached_tokens >= whole.usage.input_tokens


def test_streamed_message_equals_the_whole_one(messages):
    body = {
        "model": "stories",
        "messages": STORY,
        "max_tokens": 24,
        "extra_body": {"temperature": 0, "batch_size": 7},
    }
    whole = messages.create(**body)
    with messages.stream(**body) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert streamed.content[0].text == text == whole.content[0].text
    assert (streamed.stop_reason, whole.stop_reason) == ("max_tokens", "max_tokens")
    assert streamed.usage.output_tokens == whole.usage.output_tokens == 24
    counted = messages.count_tokens(model="stories", messages=STORY)
    for usage in (whole.usage, streamed.usage):
        assert usage.input_tokens + usage.cache_read_input_tokens == counted.input_tokens
    assert streamed.usage.cache_read_input_tokens > 0
    assert whole.usage.timings["n_batch"] == 7


def test_responses_and_messages_give_the_text_of_a_chat(server, responses, messages):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as api:
        chat = api.chat.completions.create(model="stories", messages=STORY, max_tokens=16, temperature=0)
    text = chat.choices[0].message.content
    response = responses.create(model="stories", input=STORY, max_output_tokens=16, temperature=0)
    message = messages.create(model="stories", messages=STORY, max_tokens=16, extra_body={"temperature": 0})
    assert response.output_text == message.content[0].text == text


def test_responses_and_messages_enforce_a_schema(responses, messages):
    """The model knows nothing of JSON: it is held to it."""
    reply = responses.parse(model="stories", input=STORY, text_format=Animal)
    assert isinstance(reply.output_parsed, Animal)
    with responses.stream(model="stories", input=STORY, text_format=Animal) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Animal)
    message = messages.parse(model="stories", messages=STORY, max_tokens=100, output_format=Animal)
    assert isinstance(message.parsed_output, Animal)


def test_responses_and_messages_call_a_required_tool(responses, messages):
    tool = {"type": "function", "name": "note", "parameters": PARAMETERS, "strict": True}
    response = responses.create(
        model="stories", input=STORY, tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = response.output
    assert json.loads(call.arguments) in ({"tame": True}, {"tame": False})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noted"}
    after = responses.create(
        model="stories", input=[result], previous_response_id=response.id, max_output_tokens=8
    )
    assert after.output[0].type == "message"
    body = {
        "model": "stories",
        "max_tokens": 150,
        "messages": STORY,
        "tools": [{"name": "note", "input_schema": PARAMETERS}],
        "tool_choice": {"type": "tool", "name": "note", "disable_parallel_tool_use": True},
    }
    with messages.stream(**body) as stream:
        message = stream.get_final_message()
    (use,) = message.content
    assert use.input in ({"tame": True}, {"tame": False})
    assert message.stop_reason == "tool_use"
