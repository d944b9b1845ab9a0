"""Qwen 3 Coder, Qwen 3.5, Nemotron 3, Seed: `<tool_call><function=name><parameter=key>value</parameter>…`."""

from __future__ import annotations

from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat


class QwenCoderFormat(TaggedToolCallFormat):
    name = "qwen-coder"
    syntax = TaggedSyntax("<tool_call>", "</tool_call>")

    def detects(self, source: str) -> bool:
        return all(marker in source for marker in ("<tool_call>", "<function=", "<parameter="))


class SeedFormat(TaggedToolCallFormat):
    name = "seed"
    syntax = TaggedSyntax("<seed:tool_call>", "</seed:tool_call>")

    def detects(self, source: str) -> bool:
        return "<seed:tool_call>" in source
