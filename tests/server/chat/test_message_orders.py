"""Unusual orders of messages, with every template of llama.cpp's collection.

message_orders.json records for each order what is done with it: `{order: {outcome: [templates]}}`, where all
other templates get the messages unchanged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.chat.chat_format import load_chat_format
from server.chat.messages import InvalidMessage, adapt_messages
from server.chat.prompt import ChatFormat, ChatFormats, render_prompt
from server.chat.request import ChatInput
from support.api.templates import SANDBOX
from support.builders.vocabularies import models_dir
from support.fakes.engine import tokenizer
from support.quick import every

FILES = sorted((models_dir() / "templates").glob("*.jinja"), key=lambda path: path.name)
RECORDED = json.loads(Path(__file__).with_name("message_orders.json").read_text(encoding="utf-8"))
UNCHANGED = "kept"
# What a warning says, and what the table calls it.
OUTCOMES = {
    "turned into a user message": "user turn",
    "appended to the first": "merged into the first",
    "moved to the beginning": "moved to the beginning",
    "merged with": "merged",
    "is empty and was left out": "left out",
    "became the result": "paired",
    "that became text": "calls as text",
    "an empty user message before": "after an empty user turn",
    "an empty assistant message before": "after an empty assistant turn",
    "appended to the tool result": "merged into the result",
    "has no effect": "lost",
}
SYSTEM_ROLES = ("system", "developer")
# Orders of kinds, as in `server.chat.accepted_forms`.
ORDERS = {
    "regular": "system user assistant user",
    "regular, with a tool": "system user calls tool assistant user",
    "two systems first": "system system user",
    "a system and a developer first": "system developer user",
    "system between turns": "system user assistant system user",
    "system between turns, none first": "user assistant system user",
    "developer between turns": "system user assistant developer user",
    "system before an answer": "user system assistant user",
    "system last": "system user system",
    "system after a result": "user calls tool system assistant user",
    "system between a call and its result": "user calls system tool assistant user",
    "two systems between turns": "user assistant system system user",
    "system as a reminder at every turn": "system user system assistant user system assistant user system",
    "two users": "user user",
    "two users between turns": "system user assistant user user assistant user",
    "two assistants": "user assistant assistant user",
    "a text, then a call": "user assistant calls tool assistant user",
    "assistant first": "assistant user",
    "assistant first, after a system": "system assistant user",
    "call first": "calls tool assistant user",
    "result without call": "user tool assistant user",
    "result first": "tool user",
    "result of another id": "user calls tool:other assistant user",
    "call without result": "user calls user",
    "user after a result": "user calls tool user",
    "empty user": "user:empty assistant user",
    "empty user last": "user assistant user:empty",
    "only an empty user": "user:empty",
    "assistant with neither text nor calls": "user assistant:empty user",
    "empty system": "system:empty user",
    "empty system between turns": "user assistant system:empty user",
    "empty result": "user calls tool:empty assistant user",
    "only a system": "system",
    "only systems": "system system",
}


def text_at(i: int) -> str:
    return f"Wort-{chr(ord('A') + i)}-Ende"


def conversation(order: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for i, kind in enumerate(order.split()):
        role, _, variant = kind.partition(":")
        text = None if kind == "assistant:empty" else "" if variant == "empty" else text_at(i)
        if kind == "calls":
            function = {"name": "look", "arguments": json.dumps({"place": text})}
            calls = [{"id": "call_1", "type": "function", "function": function}]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        elif role == "tool":
            id = "call_2" if variant == "other" else "call_1"
            messages.append({"role": role, "content": text, "tool_call_id": id})
        else:
            messages.append({"role": role, "content": text})
    return messages


def outcome(warnings: list[str]) -> str:
    names = [next(name for message, name in OUTCOMES.items() if message in text) for text in warnings]
    return " + ".join(dict.fromkeys(names)) or UNCHANGED


def rendered(chat_format: ChatFormat, messages: list[dict[str, Any]]) -> tuple[str, str]:
    """The outcome and the prompt."""
    try:
        chat = ChatInput(messages, add_generation_prompt=True)
        prompt = render_prompt(chat, ChatFormats(chat_format, chat_format), None)
    except InvalidMessage as refusal:
        return f"refused: {refusal.path}", ""
    return outcome(prompt.warnings), prompt.text


def unordered(chat_format: ChatFormat, messages: list[dict[str, Any]]) -> str:
    """The text that a regular conversation has: what the template makes of the messages themselves."""
    capabilities = chat_format.capabilities
    return chat_format.template.render(
        adapt_messages(messages, capabilities),
        tools=[] if capabilities.empty_tools else None,
        extra={"enable_thinking": True},
    )


def moves_the_system(chat_format: ChatFormat) -> bool:
    """Mistral's older templates write the system message before the last message of the user."""
    _, text = rendered(chat_format, conversation(ORDERS["regular"]))
    return text.find(text_at(0)) > text.find(text_at(1))


def check_texts(order: str, outcome: str, text: str, moves: bool) -> None:
    """Every text occurs once; those of other messages than system ones are in their order."""
    kinds = order.split()
    words = {i: text_at(i) for i, kind in enumerate(kinds) if not kind.endswith(":empty")}
    if "lost" in outcome:  # text beside a call, which these templates never show; a warning says so
        assert order == ORDERS["a text, then a call"]
        assert text_at(1) not in text
        del words[1]
    assert all(text.count(word) == 1 for word in words.values()), (order, text)
    talk = [text.find(word) for i, word in words.items() if kinds[i] not in SYSTEM_ROLES]
    assert talk == sorted(talk), (order, text)
    to_the_first = "first" in outcome or "beginning" in outcome
    between_call_and_result = "calls system tool" in order and outcome != UNCHANGED
    if not (moves or to_the_first or between_call_and_result):
        places = [text.find(word) for word in words.values()]
        assert places == sorted(places), (order, text)


@pytest.mark.parametrize("path", every(5, FILES), ids=lambda path: path.stem)
def test_outcome_of_every_order_is_as_recorded_and_no_text_is_lost(path: Path) -> None:
    chat_format = load_chat_format(path.read_text(encoding="utf-8"), tokenizer(), SANDBOX)
    moves = moves_the_system(chat_format)
    different = {}
    for name, order in ORDERS.items():
        messages = conversation(order)
        actual, text = rendered(chat_format, messages)
        recorded = next((o for o, stems in RECORDED[name].items() if path.stem in stems), UNCHANGED)
        if actual != recorded:
            different[name] = actual
        if actual.startswith("refused"):
            continue
        check_texts(order, actual, text, moves)
        as_text = "calls" in order or "tool" in order
        if actual == UNCHANGED and not (as_text and not chat_format.capabilities.calls):
            assert text == unordered(chat_format, messages)
    assert not different


def test_recorded_table_covers_every_order_and_existing_templates() -> None:
    assert list(RECORDED) == list(ORDERS)
    stems = {path.stem for path in FILES}
    for outcomes in RECORDED.values():
        assert UNCHANGED not in outcomes
        assert {stem for listed in outcomes.values() for stem in listed} <= stems


def record() -> dict[str, dict[str, list[str]]]:
    """The table, as the templates make it: `python -m pytest` compares, this writes."""
    table: dict[str, dict[str, list[str]]] = {name: {} for name in ORDERS}
    for path in FILES:
        chat_format = load_chat_format(path.read_text(encoding="utf-8"), tokenizer(), SANDBOX)
        for name, order in ORDERS.items():
            actual, _ = rendered(chat_format, conversation(order))
            if actual != UNCHANGED:
                table[name].setdefault(actual, []).append(path.stem)
    return table


if __name__ == "__main__":  # PYTHONPATH=.:tests python tests/server/chat/test_message_orders_…py
    file = Path(__file__).with_name("message_orders.json")
    file.write_text(json.dumps(record(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
