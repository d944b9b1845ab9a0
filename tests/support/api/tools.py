"""Tools of tests, and calls of them in every format."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from server.chat.output import OutputDelta
from server.chat.prompt import AnswerParser
from server.chat.request import Tool
from server.chat.streaming_parser import StreamingParser
from server.chat.tool_calls.registry import TOOL_CALL_FORMATS
from server.chat.tool_calls.tool_call_format import ToolOptions, WholeAnswerFormat
from server.generation.output_processor import merge_deltas

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
WEATHER = Tool("get_weather", "The weather", PARAMETERS, None, "tools[0]")
NOW = Tool("now", "The time", None, None, "tools[1]")
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
_M3 = "]<]minimax[>["


def _tag_calls(call: str, argument: str, end: str) -> str:
    """Calls whose arguments are tags."""
    pairs = (
        ("city", "string", 'Zürich "{x}"'),
        ("days", "number", "2"),
        ("list", "array", '[1, {"a": "]"}]'),
        ("wet", "boolean", "true"),
    )
    tags = "".join(
        argument.replace("KEY", key).replace("TYPE", kind).replace("TEXT", str(kind == "string").lower())
        .replace("VALUE", value)
        for key, kind, value in pairs
    )  # fmt: skip
    weather, now = (call.replace("NAME", name).replace("INDEX", index) for name, index in
                    (("get_weather", "1"), ("now", "2")))  # fmt: skip
    return weather + tags + end + now + end


_ARGUMENT_KEY = "<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n"
_DSML = "<｜DSML｜{0}>\n" + _tag_calls(  # noqa: RUF001
    '<｜DSML｜invoke name="NAME">\n',  # noqa: RUF001
    '<｜DSML｜parameter name="KEY" string="TEXT">VALUE</｜DSML｜parameter>\n',  # noqa: RUF001
    "</｜DSML｜invoke>\n",  # noqa: RUF001
).replace("{", "{{").replace("}", "}}") + "</｜DSML｜{0}>"  # fmt: skip  # noqa: RUF001
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
    "seed": re.sub(
        r"\n</par|(?<=[a-z]>)\n(?=[Z2\[T])", lambda m: m[0].strip(), _TAGS.format("seed:tool_call")
    ),
    "deepseek-v3.2": _DSML.format("function_calls"),
    "deepseek-v4": _DSML.format("tool_calls"),
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
    "<|tool_call_argument_begin|>"
    f"{ARGUMENTS}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}"
    "<|tool_call_end|><|tool_calls_section_end|>",
    "kimi-k3": "<|open|>tools<|sep|>"
    + _tag_calls(
        '<|open|>call tool="NAME" index="INDEX"<|sep|>',
        '<|open|>argument key="KEY" type="TYPE"<|sep|>VALUE<|close|>argument<|sep|>',
        "<|close|>call<|sep|>",
    )
    + "<|close|>tools<|sep|>",
    "gemma": '<|tool_call>call:get_weather{city:<|"|>Zürich "{x}"<|"|>,days:2,'
    'list:[1,{a:<|"|>]<|"|>}],wet:true}'
    "<tool_call|><|tool_call>call:now{}<tool_call|>",
    "lfm2": "<|tool_call_start|>[get_weather(city='Zürich \"{x}\"', days=2, "
    "list=[1, {'a': ']'}], wet=True), now()]"
    "<|tool_call_end|>",
    "apertus": f'<|tools_prefix|>[{{"get_weather": {ARGUMENTS}}}, {{"now": {{}}}}]<|tools_suffix|>',
    "granite": f'<|tool_call|>[{{"name": "get_weather", "arguments": {ARGUMENTS}}}, '
    '{"name": "now", "arguments": {}}]',
    "glm": _tag_calls("<tool_call>NAME\n", _ARGUMENT_KEY, "</tool_call>\n").rstrip(),
    "hunyuan3": "<tool_calls:opensource>\n"
    + _tag_calls(
        "<tool_call:opensource>NAME<tool_sep:opensource>\n",
        _ARGUMENT_KEY.replace("key>", "key:opensource>").replace("value>", "value:opensource>"),
        "</tool_call:opensource>\n",
    )
    + "</tool_calls:opensource>",
    "minimax-m2": "<minimax:tool_call>\n"
    + _tag_calls('<invoke name="NAME">\n', '<parameter name="KEY">VALUE</parameter>\n', "</invoke>\n")
    + "</minimax:tool_call>",
    "minimax-m3": f'{_M3}<tool_call>\n{_M3}<invoke name="get_weather">{_M3}<city>Zürich "{{x}}"{_M3}</city>'
    f"{_M3}<days>2{_M3}</days>{_M3}<list>{_M3}<item>1{_M3}</item>{_M3}<item>{_M3}<a>]{_M3}</a>{_M3}</item>"
    f'{_M3}</list>{_M3}<wet>true{_M3}</wet>{_M3}</invoke>\n{_M3}<invoke name="now">{_M3}</invoke>\n'
    f"{_M3}</tool_call>",
    "minicpm": _tag_calls(
        '<function name="NAME">', '<param name="KEY">VALUE</param>', "</function>\n"
    ).rstrip(),
    "functionary-v3.2": f"get_weather\n{ARGUMENTS}>>>now\n{{}}",
    "solar": "<|tool_calls|><|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>get_weather<|tool_call:args|>"
    f"{ARGUMENTS}<|tool_call:end|><|tool_call:begin|>b1b2c3d4e5<|tool_call:name|>now<|tool_call:args|>{{}}"
    "<|tool_call:end|><|calls|>",
    "muse": "<|eom|><|start|>assistant".join(
        f" to={name}<|message|><atem:function_calls>\n{call}</atem:function_calls>"
        for name, call in zip(
            ("get_weather", "now"),
            _tag_calls(
                '<atem:invoke name="NAME">\n',
                '<atem:parameter name="KEY">VALUE</atem:parameter>\n',
                "</atem:invoke>\n|",
            ).split("|")[:2],
            strict=True,
        )
    ),
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


def new_parser(name: str, tools: tuple[Tool, ...] = TOOLS, **options: Any) -> StreamingParser:
    """After a prompt that ends with what the format begins an answer with."""
    call_format, call_options = FORMATS[name], ToolOptions(tools, **options)
    if name == "functionary-v3.2" and isinstance(call_format, WholeAnswerFormat):
        return call_format.new_answer_parser(call_options, counter(), ">>>", False)
    return call_format.new_parser(call_options, counter())


def read(parser: StreamingParser | AnswerParser, pieces: list[str]) -> OutputDelta:
    return merge_deltas([*(parser.push(piece) for piece in pieces), parser.push("", last=True)])


def calls_of(parts: OutputDelta) -> list[tuple[str, str, Any]]:
    return [(call.id, call.name, json.loads(call.arguments)) for call in parts.tools]
