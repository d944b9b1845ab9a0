"""System messages in the middle, on every API that chats: they share one path."""

from __future__ import annotations

from typing import Any

import pytest

from support.api.chat import answering, app
from support.api.http import CHAT, client

pytestmark = pytest.mark.anyio
TEMPLATE = "Qwen3.5-4B"  # raises "System message must be at the beginning."
CHANGED = "was turned into a user message: the chat template does not accept a {} message there"


def talk(role: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": role, "content": "Be brief."},
        {"role": "user", "content": "Well?"},
    ]


async def send(path: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The response, and the prompt."""
    engine = answering("yes")
    async with client(app(engine, TEMPLATE)) as http:
        response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()
    (request,) = engine.seen
    return data, engine.tokenizer.decode(list(request.prompt))


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_system_message_in_the_middle_of_a_chat_becomes_a_user_message(role: str) -> None:
    actual, prompt = await send(CHAT, {"messages": [{"role": "system", "content": "S"}, *talk(role)]})
    assert f"[{role.capitalize()} message]\nBe brief." in prompt
    assert f"messages[3] {CHANGED.format(role)}" in actual["warnings"]


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_system_message_in_the_middle_of_items_becomes_a_user_message(role: str) -> None:
    actual, prompt = await send("/v1/responses", {"instructions": "S", "input": talk(role)})
    assert f"[{role.capitalize()} message]\nBe brief." in prompt
    assert f"input: a message of the role {role} {CHANGED.format(role)}" in actual["warnings"]


async def test_system_message_in_the_middle_of_turns_becomes_a_user_message() -> None:
    body = {"system": [{"type": "text", "text": "S"}], "messages": talk("system"), "max_tokens": 5}
    body["messages"][2]["content"] = [{"type": "text", "text": "Be brief."}]
    actual, prompt = await send("/v1/messages", body)
    assert "[System message]\nBe brief." in prompt
    assert f"messages: a message of the role system {CHANGED.format('system')}" in actual["warnings"]


async def test_message_the_template_refuses_is_named(tmp_path: Any) -> None:
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    messages = [*talk("system"), {"role": "assistant", "content": "bad"}, {"role": "user", "content": "x"}]
    async with client(app(answering("yes"), None, chat_template=path)) as http:
        response = await http.post(CHAT, json={"messages": messages})
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["code"]) == ("messages[4]", "template_failed")
    assert error["message"].startswith("messages[4]: the assistant message cannot stand here")
