"""What Zed and VS Code read of models and answers, by their source: the editors were not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.api.http import client
from support.builders.vocabularies import models_dir
from support.fakes.engine import FakeEngine, ids, make_app
from support.quick import every

pytestmark = pytest.mark.asyncio
RECORDED = Path(__file__).parent / "recorded"
REQUESTS = [
    request
    for name in ("zed.json", "vscode.json")
    for request in json.loads((RECORDED / name).read_text(encoding="utf-8"))
]
TEMPLATE = models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja"
ARGUMENTS = {"command": "cat out.txt", "cd": "work"}


def editor(reply: str = "") -> Any:
    return client(make_app(FakeEngine(ids(reply), n_ctx=1 << 17, step=8), chat_template=TEMPLATE))


def read_chat(events: list[dict[str, Any]]) -> tuple[str, str]:
    """Name and arguments of the call that finishes the stream, and its usage."""
    assert all({"created", "model", "object"} <= event.keys() for event in events)
    assert events[-1]["usage"]["prompt_tokens"] > 0  # its choices may be empty
    choices = [choice for event in events for choice in event["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or []]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["id"]
    functions = [call["function"] for call in calls]
    return functions[0]["name"], "".join(function.get("arguments") or "" for function in functions)


def read_responses(events: list[dict[str, Any]]) -> tuple[str, str]:
    assert events[-1]["type"] == "response.completed"
    [item] = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    [done] = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert done["item_id"] == item["id"]
    assert item["call_id"]
    return item["name"], done["arguments"]


def read_ollama(events: list[dict[str, Any]]) -> tuple[str, str]:
    assert all(event["message"]["role"] == "assistant" for event in events)
    assert all(isinstance(event["message"]["content"], str) for event in events)
    assert events[-1]["done"] is True
    assert events[-1]["prompt_eval_count"] > 0
    [call] = [call for event in events for call in event["message"].get("tool_calls") or []]
    return call["function"]["name"], json.dumps(call["function"]["arguments"])


READERS = {
    "/v1/chat/completions": read_chat,
    "/v1/responses": read_responses,
    "/api/chat": read_ollama,
}


@pytest.mark.parametrize("request_", every(4, REQUESTS), ids=[request["made_from"] for request in REQUESTS])
async def test_streamed_tool_call_is_readable_by_each_provider(request_: dict[str, Any]) -> None:
    tool = request_["body"]["tools"][0]
    called = tool.get("function", tool)["name"]
    call = json.dumps({"name": called, "arguments": ARGUMENTS})
    async with editor(f"<tool_call>\n{call}\n</tool_call>") as http:
        text = (await http.post(request_["path"], json=request_["body"], headers=request_["headers"])).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: {", "{"))]
    name, arguments = READERS[request_["path"]]([json.loads(line) for line in lines])
    assert (name, json.loads(arguments)) == (called, ARGUMENTS)


async def test_llama_cpp_provider_sees_the_loaded_model_with_context_and_tools() -> None:
    async with editor() as http:
        [model] = (await http.get("/v1/models")).json()["data"]
        props = (await http.get("/props")).json()
    assert model["id"] == "stories"
    assert "status" not in model  # with it, the server would be a router that loads models
    assert props["default_generation_settings"]["n_ctx"] == 1 << 17
    assert props["chat_template_caps"]["supports_tool_calls"] is True


async def test_ollama_provider_sees_a_model_with_tools() -> None:
    async with editor() as http:
        [model] = (await http.get("/api/tags")).json()["models"]
        shown = (await http.post("/api/show", json={"model": model["name"]})).json()
    kinds = {"name": str, "modified_at": str, "size": int, "digest": str, "details": dict}
    assert {name: type(model[name]) for name in kinds} == kinds
    details = model["details"]
    assert all(
        isinstance(details[name], str)
        for name in ("format", "family", "parameter_size", "quantization_level")
    )
    assert {"tools", "thinking"} <= set(shown["capabilities"])


async def test_vscodes_ollama_provider_sees_a_model_with_tools() -> None:
    async with editor() as http:
        version = (await http.get("/api/version")).json()["version"]
        [model] = (await http.get("/api/tags")).json()["models"]
        shown = (await http.post("/api/show", json={"model": model["model"]})).json()
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]
    info = shown["model_info"]
    assert info["general.basename"] == "stories"
    assert info[f"{info['general.architecture']}.context_length"] == 1 << 17
    assert "tools" in shown["capabilities"]
    assert "vision" not in shown["capabilities"]
