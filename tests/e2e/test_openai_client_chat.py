"""Tools and reasoning through the official Python client, on a real socket."""

from __future__ import annotations

import json

import openai
import pytest

from support.api.http import user
from support.api.tools import CALLS, PARAMETERS, VALUE
from support.builders.vocabularies import models_dir
from support.fakes.engine import FakeEngine, make_app, serving

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]


@pytest.fixture
def api():
    engine = FakeEngine(f"<think>Hm.</think>\nLet me see.\n{CALLS['hermes']}", n_ctx=8192)
    application = make_app(engine, chat_template=models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja")
    with (
        serving(application) as base,
        openai.OpenAI(base_url=base + "/v1", api_key="x", max_retries=0) as http_client,
    ):
        yield http_client


def test_chat_with_tools_returns_reasoning_and_calls(api):
    message = (
        api.chat.completions.create(model="stories", messages=user("Hi"), tools=TOOLS).choices[0].message
    )
    assert message.content == "Let me see."
    assert message.reasoning_content == "Hm."
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "now"]
    again = [
        *user("Hi"),
        message,
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"},
    ]
    assert api.chat.completions.create(model="stories", messages=again, tools=TOOLS).choices


def test_chat_stream_with_tools_adds_up_to_the_calls(api):
    seen = []
    with api.chat.completions.stream(model="stories", messages=user("Hi"), tools=TOOLS) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                seen.append((event.name, event.index, json.loads(event.arguments)))
        final = stream.get_final_completion().choices[0]
    assert seen == [("get_weather", 0, VALUE), ("now", 1, {})]
    assert final.finish_reason == "tool_calls"
    assert final.message.content == "Let me see."
    assert [json.loads(call.function.arguments) for call in final.message.tool_calls] == [VALUE, {}]
