# ruff: noqa: RUF001 - their markers have these characters
"""DeepSeek: sections of calls, each with its name before JSON (R1, V3, V3.1) or tags (V3.2, V4)."""

from __future__ import annotations

from server.chat.tool_calls.named_calls import NamedSyntax, NamedToolCallFormat
from server.chat.tool_calls.tagged_calls import TaggedSyntax, TaggedToolCallFormat
from server.chat.tool_calls.tool_call_format import CallFrame

_BEGIN, _END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SECTION, _SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_FUNCTION = f"{_BEGIN}function<｜tool▁sep｜>"


class DeepSeekR1Format(NamedToolCallFormat):
    """R1, its distillations, and V3 before August 2025."""

    name = "deepseek-r1"
    template_has = (_BEGIN, "```json")
    syntax = NamedSyntax(
        CallFrame(_SECTION, _FUNCTION, f"\n```{_END}\n{_FUNCTION}", f"\n```{_END}{_SECTION_END}"),
        "\n```json\n",
    )


class DeepSeekV31Format(NamedToolCallFormat):
    """V3.1."""

    name = "deepseek-v3.1"
    template_has = (_BEGIN,)
    template_lacks = ("```json",)
    syntax = NamedSyntax(CallFrame(_SECTION, _BEGIN, _END + _BEGIN, _END + _SECTION_END), "<｜tool▁sep｜>")


class DeepSeekV32Format(TaggedToolCallFormat):
    """V3.2 and V4, which say for each argument whether it is a string or JSON."""

    name = "deepseek-v3.2"
    template_has: tuple[str, ...] = ("｜DSML｜", "function_calls>")

    def __init__(self, section: str = "function_calls") -> None:
        last = f"</｜DSML｜invoke>\n</｜DSML｜{section}>"
        first, again = '\n<｜DSML｜invoke name="', '</｜DSML｜invoke>\n<｜DSML｜invoke name="'
        self.syntax = TaggedSyntax(
            CallFrame(f"<｜DSML｜{section}>", first, again, last),
            '">\n',
            '<｜DSML｜parameter name="',
            '" string="true">',
            "</｜DSML｜parameter>\n",
            '" string="false">',
        )


class DeepSeekV4Format(DeepSeekV32Format):
    name = "deepseek-v4"
    template_has = ("｜DSML｜",)
    template_lacks = ("function_calls>",)

    def __init__(self) -> None:
        super().__init__("tool_calls")
