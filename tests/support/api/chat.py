"""Requests of chats to an application around a FakeEngine with a published chat template."""

from __future__ import annotations

from typing import Any

from support.api.http import CHAT, client, events, user
from support.api.tools import PARAMETERS
from support.builders.vocabularies import models_dir
from support.fakes.engine import FakeEngine, make_app

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
NOW = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
QWEN, R1, LLAMA, GPT_OSS = (
    "Qwen-Qwen3-0.6B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "openai-gpt-oss-120b",
)


def app(engine: FakeEngine, template: str | None = QWEN, **fields: Any) -> Any:
    if template is not None:
        fields["chat_template"] = models_dir() / "templates" / f"{template}.jinja"
    return make_app(engine, **fields)


def answering(text: str, **fields: Any) -> FakeEngine:
    return FakeEngine(text, n_ctx=8192, **fields)


async def ask(engine: FakeEngine, template: str | None = QWEN, **body: Any) -> dict[str, Any]:
    """A whole response."""
    engine.state = "ready"  # also after another application stopped it
    async with client(app(engine, template)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), **body})
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()
    return data


async def deltas(engine: FakeEngine, template: str | None = QWEN, **body: Any) -> list[dict[str, Any]]:
    """Those of a stream, and how it finished."""
    async with client(app(engine, template)) as http:
        response = await http.post(CHAT, json={"messages": user("Hi"), "stream": True, **body})
    chunks = events(response.text)
    finish = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert finish[:-1] == [None] * (len(finish) - 1)
    return [*(chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]), {"finish": finish[-1]}]


class NotEnding:
    """The tokenizer, for which <|end|> ends nothing."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.eog_ids = frozenset((inner.eos_id,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
