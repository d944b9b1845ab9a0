"""Functionary 3.1, and Llama 3 where its prompt says so: `<function=name>{…}</function>`."""

from __future__ import annotations

from server.chat.tool_calls.named_calls import NamedSyntax, NamedToolCallFormat


class FunctionaryFormat(NamedToolCallFormat):
    name = "functionary"
    syntax = NamedSyntax("<function=", ">", "</function>")

    def detects(self, source: str) -> bool:
        return "<function=" in source and "</function>" in source and "<parameter=" not in source
