"""Requests as real clients sent them, replayed: each is taken, and nothing new in it is without effect.

They were recorded once, with the clients of docs/clients.md against this server; Open WebUI's first three are
what its conversion of OpenAI's requests to Ollama's makes, and Continue's after the second are those of the
classes that its extensions use, run without an editor. Zed's and VS Code's were not recorded: they follow the
source (`made_from`). Prompts, descriptions of tools and names of users are replaced; lists of tools are
shortened.
`warnings`: those that are known.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import httpx
import pytest
import pytest_asyncio

from support.api.http import client
from support.builders.vocabularies import models_dir
from support.fakes.engine import TEXT, FakeEngine, make_app

RECORDED = Path(__file__).parent / "recorded"
TEMPLATE = models_dir() / "templates" / "Qwen-Qwen3-0.6B.jinja"
# Of each route: the official type of a whole response, which takes a second to import, and the last event of
# a stream.
ANSWERS = {
    "/v1/chat/completions": ("openai.types.chat:ChatCompletion", "[DONE]"),
    "/v1/completions": ("openai.types:Completion", "[DONE]"),
    "/v1/messages": ("anthropic.types:Message", "message_stop"),
    "/v1/responses": ("openai.types.responses:Response", "response.completed"),
    "/api/chat": ("ollama:ChatResponse", '"done":true'),
    "/api/generate": ("ollama:GenerateResponse", '"done":true'),
}


def requests() -> list[Any]:
    return [
        pytest.param(request, id=f"{path.stem}-{i}")
        for path in sorted(RECORDED.glob("*.json"))
        for i, request in enumerate(json.loads(path.read_text(encoding="utf-8")))
    ]


def warnings_of(text: str) -> list[str]:
    """Those of a whole response, or of the last event of a stream that has some."""
    bodies = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: {", "{"))]
    collected: list[str] = []
    for body in map(json.loads, bodies):
        nested = body.get("response")  # the event's response, or Ollama's text
        collected = body.get("warnings") or (isinstance(nested, dict) and nested.get("warnings")) or collected
    return collected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[tuple[httpx.AsyncClient, FakeEngine]]:
    """One for all: each would start a process for its templates."""
    engine = FakeEngine(n_ctx=1 << 17, step=8)
    async with client(make_app(engine, chat_template=TEMPLATE, any_model=True)) as http:
        yield http, engine


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("request_", requests())
async def test_recorded_request_gets_an_answer_that_its_client_can_read(
    request_: dict[str, Any], server: tuple[httpx.AsyncClient, FakeEngine]
) -> None:
    http, engine = server
    engine.seen.clear()
    response = await http.post(request_["path"], json=request_["body"], headers=request_["headers"])
    assert response.status_code == request_["status"], response.text
    assert len(engine.seen) == (response.status_code == 200)
    if response.status_code != 200:
        return
    kind, end = ANSWERS[request_["path"].split("?")[0]]
    assert warnings_of(response.text) == request_["warnings"]
    if request_["body"].get("stream", request_["path"].startswith("/api/")):
        separator = "\n" if response.headers["content-type"] == "application/x-ndjson" else "\n\n"
        assert end in response.text.strip().rsplit(separator, 1)[1]
        assert TEXT.split()[-1].rstrip(".") in response.text
    else:
        resolve_name(kind).model_validate(response.json(), strict=True)
        assert TEXT.strip() in json.dumps(response.json())


def test_every_recorded_client_has_recordings() -> None:
    clients = {path.stem for path in RECORDED.glob("*.json")}
    assert clients >= {"claude_code", "codex", "opencode", "cline", "continue", "aider", "open_webui"}
    assert clients >= {"langchain", "openai_agents", "semantic_kernel", "vercel_ai_sdk"}
    assert clients >= {"zed", "vscode", "home_assistant", "outlines", "guidance"}
