"""Calls that are required, by a real server with the bundled model, which never saw a tool in its life."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import jsonschema
import openai
import pytest

from support.api.http import user
from support.builders.vocabularies import models_dir
from support.server_process import ServerProcess

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "wet": {"type": "boolean"},
    },
    "required": ["city", "days"],
}
TIME: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"enum": ["UTC", "CET"]}},
    "required": ["zone"],
}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": p}} for n, p in SCHEMAS.items()]
# One of each kind of grammar: JSON between marks, bare, name first, tags, ours, channels, reasoning first.
TEMPLATES = [
    "Qwen-Qwen2.5-7B-Instruct",
    "meta-llama-Llama-3.1-8B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "Qwen3-Coder",
    None,
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "openai-gpt-oss-120b",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
]


@contextmanager
def serving(template: str | None) -> Iterator[openai.OpenAI]:
    options = ["--chat-template", str(models_dir() / "templates" / f"{template}.jinja")] if template else []
    with (
        ServerProcess("--threads", "1", "--context-size", "4096", *options) as process,
        openai.OpenAI(base_url=process.url + "/v1", api_key="x", max_retries=0, timeout=120) as api,
    ):
        yield api


def check(call: Any) -> str:
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    name: str = call.function.name
    return name


@pytest.mark.parametrize("template", TEMPLATES)
def test_required_calls_are_valid(template):
    fixed = {"model": "stories", "messages": user("What is the weather?"), "tools": TOOLS, "max_tokens": 400}
    if template is not None and "R1" in template:
        fixed["extra_body"] = {"reasoning_budget": 8}
    with serving(template) as api:
        for seed in range(3):
            whole = api.chat.completions.create(
                **fixed, tool_choice="required", parallel_tool_calls=False, seed=seed
            ).choices[0]
            assert whole.finish_reason == "tool_calls"
            assert not whole.message.content
            (call,) = whole.message.tool_calls
            check(call)
        several = api.chat.completions.create(
            **fixed, tool_choice="required", parallel_tool_calls=True, seed=4
        ).choices[0]
        complete = several.message.tool_calls[: None if several.finish_reason == "tool_calls" else -1]
        assert len([check(call) for call in complete]) >= 1
        named = {"type": "function", "function": {"name": "get_time"}}
        one = api.chat.completions.create(**fixed, tool_choice=named, parallel_tool_calls=False, seed=1)
        (call,) = one.choices[0].message.tool_calls
        assert check(call) == "get_time"
        with api.chat.completions.stream(
            **fixed, tool_choice=named, parallel_tool_calls=False, seed=1
        ) as stream:
            streamed = stream.get_final_completion().choices[0]
        (again,) = streamed.message.tool_calls
        assert again.function.arguments == call.function.arguments
        assert streamed.finish_reason == "tool_calls"


def test_constrained_and_free_answers_run_together_and_an_invalid_schema_is_refused():
    """Constrained and free answers at the same time; what cannot be compiled is a 400 that names the tool."""
    with serving("Qwen-Qwen2.5-7B-Instruct") as api:
        free = (
            api.chat.completions.create(model="stories", messages=user("A cat"), max_tokens=40, temperature=0)
            .choices[0]
            .message.content
        )
        base = str(api.base_url)
        body = {"model": "stories", "messages": user("A cat"), "max_tokens": 40, "temperature": 0}
        auto = httpx.post(f"{base}chat/completions", json={**body, "tools": TOOLS}, timeout=60).json()
        assert auto["choices"][0]["finish_reason"] in ("stop", "length", "tool_calls")
        assert "warnings" not in auto
        again = (
            api.chat.completions.create(model="stories", messages=user("A cat"), max_tokens=40, temperature=0)
            .choices[0]
            .message.content
        )
        assert again == free
        bad = {
            "type": "function",
            "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nope"}}}},
        }
        required = {**body, "tools": [*TOOLS, bad], "tool_choice": "required"}
        refused = httpx.post(f"{base}chat/completions", json=required, timeout=60)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "tools[2].function.parameters"
        warned = httpx.post(f"{base}chat/completions", json={**body, "tools": [bad]}, timeout=60).json()
        assert warned["warnings"][0].startswith("tools: the schemas of arguments are not enforced")
