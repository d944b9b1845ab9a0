"""Reasoning of POST /v1/chat/completions, and answers that the client began."""

from __future__ import annotations

from typing import Any

import pytest

from engine.types import Thinking
from server.chat.reasoning import KNOWN_MARKERS, ReasoningMarkers
from support.api.chat import (
    GPT_OSS,
    R1,
    SCHEMA,
    TOOLS,
    NotEnding,
    answering,
    app,
    ask,
    deltas,
)
from support.api.http import CHAT, client, user
from support.api.tools import CALLS
from support.fakes.engine import ids, make_app, tokenizer

pytestmark = pytest.mark.asyncio


async def test_reasoning_is_separated_from_content():
    text = "<think>\nThe user greets.\n</think>\n\nHello!"
    body = await ask(answering(text))
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "The user greets.")
    thinking = len(ids("<think>\nThe user greets.\n</think>"))
    counted = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert abs(counted - thinking) <= 3
    first, *middle, last, finish = await deltas(answering(text))
    assert (first, last, finish) == ({"role": "assistant", "content": None}, {}, {"finish": "stop"})
    shown = [delta for delta in middle if any(delta.values())]
    assert "".join(delta.get("reasoning_content", "") for delta in shown) == "The user greets."
    assert "".join(delta.get("content", "") for delta in shown) == "Hello!"
    kinds = [next(iter(delta)) for delta in shown]
    assert kinds == sorted(kinds, reverse=True)  # reasoning first


async def test_reasoning_stays_in_the_content_if_requested():
    text = "<think>\nThe user greets.\n</think>\n\nHello!"
    body = await ask(answering(text), reasoning_format="none")
    assert body["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}


async def test_reasoning_opened_by_the_prompt_is_separated():
    engine = answering("I see.\n</think>\n\nHello!")
    message = (await ask(engine, R1))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "I see.")
    assert tokenizer().decode(engine.seen[0].prompt).endswith("<think>\n")


async def test_calls_after_reasoning_are_parsed():
    body = await ask(answering(f"<think>Hm.</think>\n\n{CALLS['hermes']}"), tools=TOOLS)
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "Hm.")
    assert len(message["tool_calls"]) == 2


MARKS = ReasoningMarkers("<|user|>", "<|end|>")  # which are tokens of the bundled model
MARKED = "{% for m in messages %}{{ m.content }}{% endfor %}{% if opened %}<|user|>\n{% endif %}{# <|end|> #}"


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """An engine and an application of a model whose reasoning stands between tokens of their own."""
    monkeypatch.setattr("server.chat.reasoning.KNOWN_MARKERS", (MARKS, *KNOWN_MARKERS))
    monkeypatch.setattr("server.chat.chat_format.KNOWN_MARKERS", (MARKS, *KNOWN_MARKERS))
    file = tmp_path / "marked.jinja"
    file.write_text(MARKED, encoding="utf-8")
    engine = answering("x")
    engine.tokenizer = NotEnding(tokenizer())

    def make(**options: Any) -> Any:
        engine.state = "ready"
        return make_app(engine, chat_template=file, **options)

    return engine, make


async def test_reasoning_budget_reaches_the_engine(marked):
    engine, make = marked
    opened = {"chat_template_kwargs": {"opened": True}}
    async with client(make()) as http:
        for fields in (
            {"reasoning_budget": 16},
            {"reasoning_budget_tokens": 0, **opened},
            {"reasoning_effort": "none", **opened},
            {"thinking_budget_tokens": -1, **opened},
        ):
            await http.post(CHAT, json={"messages": user("Hi"), **fields})
    user_id, end_id = tokenizer().vocabulary.ids["<|user|>"], tokenizer().vocabulary.ids["<|end|>"]
    start, end = (user_id,), (end_id,)
    assert [request.thinking for request in engine.seen] == [
        Thinking(start=start, end=end, budget=16),
        Thinking(start=start, end=end, budget=0, opened=True),
        Thinking(start=start, end=end, budget=0, opened=True),
        None,
    ]


async def test_markers_that_are_not_tokens_stay_text():
    engine = answering("x")
    await ask(engine, R1, reasoning_budget=16)
    thinking = engine.seen[0].thinking
    assert thinking is not None
    assert b"".join(map(tokenizer().token_bytes, thinking.end)) == b"</think>"
    assert (thinking.budget, thinking.opened) == (16, True)


async def test_budget_without_reasoning_gets_a_warning():
    engine = answering("x")
    body = await ask(engine, None, reasoning_budget=16)
    assert engine.seen[0].thinking is None
    assert [warning for warning in body["warnings"] if "budget" in warning]


async def test_the_answer_continues_the_last_message():
    engine = answering(" upon a time")
    body = await ask(engine, messages=[*user("A story"), {"role": "assistant", "content": "Once"}])
    assert tokenizer().decode(engine.seen[0].prompt).endswith("</think>\n\nOnce")
    assert body["choices"][0]["message"]["content"] == " upon a time"


async def test_special_tokens_of_the_format_are_seen_by_the_parser(marked):
    """`<|user|>` is a control token, which is no text otherwise."""
    engine, make = marked
    engine.reply = [*ids("<|user|>"), *ids("hm"), *ids("<|end|>"), *ids("yes"), *ids("<|user|>")]
    async with client(make()) as http:
        message = (await http.post(CHAT, json={"messages": user("Hi")})).json()["choices"][0]["message"]
        text = (await http.post("/v1/completions", json={"prompt": "Hi"})).json()["choices"][0]["text"]
    assert (message["content"], message["reasoning_content"]) == ("yes<|user|>", "hm")
    assert text == "hmyes"


async def test_reasoning_options_of_the_server_are_defaults_for_requests(marked):
    engine, make = marked
    engine.reply = [*ids("<|user|>"), *ids("Hm."), *ids("<|end|>"), *ids("Hello!")]
    options = {"reasoning_format": "none", "reasoning_budget": 7}
    options["chat_template_kwargs"] = {"opened": False}
    async with client(make(**options)) as http:
        plain = await http.post(CHAT, json={"messages": user("Hi")})
        defaults = {
            "reasoning_format": "auto",
            "reasoning_budget": -1,
            "chat_template_kwargs": {"opened": True},
        }
        other = await http.post(CHAT, json={"messages": user("Hi"), **defaults})
    async with client(make(reasoning="off")) as http:
        await http.post(CHAT, json={"messages": user("Hi")})
        await http.post(
            CHAT, json={"messages": user("Hi"), "chat_template_kwargs": {"enable_thinking": True}}
        )
    assert plain.json()["choices"][0]["message"]["content"] == "<|user|>Hm.<|end|>Hello!"
    message = other.json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello!", "Hm.")
    budgets = [
        request.thinking and (request.thinking.budget, request.thinking.opened) for request in engine.seen
    ]
    assert budgets == [(7, False), None, (0, False), None]


async def test_reasoning_off_is_passed_to_the_template():
    engine = answering("x")
    async with client(app(engine, reasoning="off")) as http:
        shown = await http.post("/apply-template", json={"messages": user("Hi")})
        body = {"messages": user("Hi"), "chat_template_kwargs": {"enable_thinking": True}}
        other = await http.post("/apply-template", json=body)
    assert shown.json()["prompt"].endswith("<think>\n\n</think>\n\n")
    assert other.json()["prompt"].endswith("<|im_start|>assistant\n")


async def test_effort_the_template_does_not_take_gets_a_warning():
    body = await ask(answering("x"), reasoning_effort="low")
    assert body["warnings"] == [
        "the reasoning effort has no effect: the chat template does not use reasoning_effort"
    ]
    assert "warnings" not in await ask(answering("x"), GPT_OSS, reasoning_effort="low")
    assert "warnings" not in await ask(answering("x"), reasoning_effort="none")


async def test_reasoning_comes_before_the_constrained_answer(marked):
    engine, make = marked
    async with client(make()) as http:
        for fields in ({"response_format": SCHEMA}, {"tools": TOOLS, "tool_choice": "required"}, {}):
            await http.post(CHAT, json={"messages": user("Hi"), **fields})
    assert [request.thinking is not None for request in engine.seen] == [True, True, False]
    # GPT-OSS's grammar has its reasoning in it.
    engine = answering("x")
    await ask(engine, GPT_OSS, tools=TOOLS, tool_choice="required")
    assert engine.seen[0].thinking is None
    await ask(engine, GPT_OSS, tools=TOOLS, tool_choice="required", reasoning_budget=5)
    assert engine.seen[1].thinking is not None
