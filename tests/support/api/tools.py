"""Tools of tests, and calls of them in every format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from server.chat.output import OutputDelta, OutputParser, merge_deltas
from server.chat.tool_calls import Tool, make_tool
from server.chat.tool_calls.registry import TOOL_CALL_FORMATS
from server.chat.tool_calls.tool_call_format import ToolCallFormat, ToolOptions

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Its name"},
        "days": {"type": "integer", "description": "How many"},
        "list": {"type": "array", "description": "Any"},
        "wet": {"type": "boolean", "description": "If it rains"},
    },
    "required": ["city"],
}
WEATHER = make_tool("get_weather", "The weather", PARAMETERS, None, "tools[0]")
NOW = make_tool("now", "The time", None, None, "tools[1]")
TOOLS = (WEATHER, NOW)
FORMATS = {call_format.name: call_format for call_format in TOOL_CALL_FORMATS}
ARGUMENTS = '{"city": "Z\\u00fcrich \\"{x}\\"", "days": 2, "list": [1, {"a": "]"}], "wet": true}'
VALUE = json.loads(ARGUMENTS)

_R1 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"  # noqa: RUF001
_V3 = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"  # noqa: RUF001
_SECTION = "<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>"  # noqa: RUF001
_TAGS = (
    '<{0}>\n<function=get_weather>\n<parameter=city>\nZürich "{{x}}"\n</parameter>\n<parameter=days>\n2\n'
    '</parameter>\n<parameter=list>\n[1, {{"a": "]"}}]\n</parameter>\n<parameter=wet>\nTrue\n</parameter>\n'
    "</function>\n</{0}>\n<{0}>\n<function=now>\n</function>\n</{0}>"
)
# By format: a call of get_weather with ARGUMENTS, then one of now without any.
CALLS: dict[str, str] = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "llama3": f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}; {{"name": "now", "parameters": {{}}}}',
    "mistral": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {ARGUMENTS}, "id": "abcdefghi"}}, '
    '{"name": "now", "arguments": {}, "id": "123456789"}]',
    "mistral-named": f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}",
    "command-r": '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
    f'{ARGUMENTS}}},\n    {{"tool_call_id": "1", "tool_name": "now", "parameters": {{}}}}\n]<|END_ACTION|>',
    "command-r-plus": f'Action:```json\n[\n    {{"tool_name": "get_weather", "parameters": {ARGUMENTS}}},\n'
    '    {"tool_name": "now", "parameters": {}}\n]```',
    "deepseek-r1": _SECTION.format(_R1.format("get_weather", ARGUMENTS) + "\n" + _R1.format("now", "{}")),
    "deepseek-v3.1": _SECTION.format(_V3.format("get_weather", ARGUMENTS) + _V3.format("now", "{}")),
    "functionary": f"<function=get_weather>{ARGUMENTS}</function><function=now>{{}}</function>",
    "qwen-coder": _TAGS.format("tool_call"),
    "seed": _TAGS.format("seed:tool_call"),
    "generic": f'{{"tool_calls": [{{"name": "get_weather", "arguments": {ARGUMENTS}}}, '
    '{"name": "now", "arguments": {}}]}',
    "harmony": "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    f"{ARGUMENTS}<|call|><|start|>assistant<|channel|>commentary to=functions.now "
    "<|constrain|>json<|message|>{}",
}


def counter() -> Callable[[], str]:
    """Ids in the place of random ones."""
    numbers = itertools.count(1)
    return lambda: f"id{next(numbers)}"


def new_parser(name: str, tools: tuple[Tool, ...] = TOOLS, **options: Any) -> OutputParser:
    call_format: ToolCallFormat = FORMATS[name]
    return call_format.new_parser(ToolOptions(tools, **options), counter())


def read(parser: OutputParser, pieces: list[str]) -> OutputDelta:
    return merge_deltas([*(parser.push(piece) for piece in pieces), parser.flush()])


def calls_of(parts: OutputDelta) -> list[tuple[str, str, Any]]:
    return [(call.id, call.name, json.loads(call.arguments)) for call in parts.tools]
