"""Where a prompt shows the contents of its messages: which are left out, and where a turn begins and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_WARNINGS = 8
TOKEN_BREAK = "\ufdd0"  # within the texts of special tokens: a noncharacter, removed from what clients send


class MessagePlaces(NamedTuple):
    """warnings: about messages that the prompt does not contain.

    turn: where the content of the last user message begins, since other conversations may be the same up to
    there. In a model that reasons, also where the last content ends: what the template puts behind it is
    often absent from the next prompt.
    """

    warnings: list[str]
    turn: tuple[int, ...]


def find_places(text: str, messages: Sequence[Mapping[str, Any]], *, reasons: bool) -> MessagePlaces:
    """Look for the contents of the messages in a prompt. reasons: whether the model may reason."""
    warnings: list[str] = []
    places: list[int] = []  # where each content begins
    position = 0  # messages are mostly in order, so that one pass finds all of them
    for i, message in enumerate(messages):
        content = message.get("content")
        pieces = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        begin = None
        for name, piece in [*(("", piece) for piece in pieces), *_reasoning_of(message)]:
            clean = piece.replace(TOKEN_BREAK, "\ufffd").strip()
            start = text.find(clean, position)
            if start >= 0:
                begin = start if begin is None else begin
                position = start + len(clean)
            elif clean not in text and json.dumps(clean, ensure_ascii=False)[1:-1] not in text:
                warnings.append(f"messages[{i}]{name} has no effect: the chat template leaves it out")
                break
        places.append(position if begin is None else begin)
        if len(warnings) == MAX_WARNINGS:
            return MessagePlaces(warnings, ())
    turn = [place for place, message in zip(places, messages, strict=True) if message["role"] == "user"][-1:]
    return MessagePlaces(warnings, (*turn, position) if reasons and position else tuple(turn))


def _reasoning_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    reasoning = message.get("reasoning_content")
    return [(".reasoning_content", reasoning)] if reasoning else []
