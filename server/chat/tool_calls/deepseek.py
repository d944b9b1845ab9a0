# ruff: noqa: RUF001 - their markers have these characters
"""DeepSeek R1, V3 and V3.1: a section of calls, each with its name before the arguments."""

from __future__ import annotations

from server.chat.tool_calls.named_calls import NamedSyntax, NamedToolCallFormat

_BEGIN = "<｜tool▁call▁begin｜>"
_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")


class DeepSeekR1Format(NamedToolCallFormat):
    """R1, its distillations, and V3 before August 2025."""

    name = "deepseek-r1"
    syntax = NamedSyntax(
        f"{_BEGIN}function<｜tool▁sep｜>",
        "\n```json\n",
        "\n```<｜tool▁call▁end｜>",
        *_SECTION,
        between="\n",
    )

    def detects(self, source: str) -> bool:
        return _BEGIN in source and "```json" in source


class DeepSeekV31Format(NamedToolCallFormat):
    """V3.1."""

    name = "deepseek-v3.1"
    syntax = NamedSyntax(_BEGIN, "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", *_SECTION)

    def detects(self, source: str) -> bool:
        return _BEGIN in source and "```json" not in source
