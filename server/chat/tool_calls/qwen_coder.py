"""Qwen 3 Coder, Qwen 3.5, Step, Nemotron 3, Seed: `<tool_call><function=name><parameter=key>value…`."""

from __future__ import annotations

from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame


def _frame(tag: str) -> CallFrame:
    last = f"</function>\n</{tag}>"
    return CallFrame(f"<{tag}>", "\n<function=", f"{last}\n<{tag}>\n<function=", last)


class QwenCoderFormat(TaggedToolCallFormat):
    name = "qwen-coder"
    template_has = ("<tool_call>", "<function=", "<parameter=")
    syntax = TaggedSyntax(_frame("tool_call"), ">\n", "<parameter=", ">\n", "\n</parameter>\n")


class SeedFormat(TaggedToolCallFormat):
    name = "seed"
    template_has = ("<seed:tool_call>",)
    syntax = TaggedSyntax(_frame("seed:tool_call"), ">\n", "<parameter=", ">", "</parameter>\n")
