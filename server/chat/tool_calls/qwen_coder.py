"""Qwen 3 Coder, Qwen 3.5, Nemotron 3, Seed: `<tool_call><function=name><parameter=key>value</parameter>…`."""

from __future__ import annotations

from server.chat.tool_calls.tagged_calls import TaggedFamily, TaggedForm


class QwenCoder(TaggedFamily):
    name = "qwen-coder"
    form = TaggedForm("<tool_call>", "</tool_call>")

    def detects(self, source: str) -> bool:
        return all(mark in source for mark in ("<tool_call>", "<function=", "<parameter="))


class Seed(TaggedFamily):
    name = "seed"
    form = TaggedForm("<seed:tool_call>", "</seed:tool_call>")

    def detects(self, source: str) -> bool:
        return "<seed:tool_call>" in source
