"""Streams whose events have names, and what stands in the prompts that conversations become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.fakes.engine import FakeEngine, tokenizer

THINKING = "{{ '<think></think>' if false }}"  # a template of a model that thinks
SHOWING = "{{ messages | tojson }}{# of tool_calls, too #}"


def named_events(text: str) -> list[dict[str, Any]]:
    """The data of each event, whose name must be its type. Comments are left out."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    collected = []
    for block in blocks:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        collected.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {collected[-1]['type']}"
    return collected


def template(folder: Path, source: str) -> str:
    """A file for --chat-template."""
    path = folder / "template.jinja"
    path.write_text(source, encoding="utf-8")
    return str(path)


def messages_seen(engine: FakeEngine) -> list[dict[str, Any]]:
    """The messages that the template SHOWING got for the last prompt."""
    data: list[dict[str, Any]] = json.loads(tokenizer().decode(engine.seen[-1].prompt))
    return data
