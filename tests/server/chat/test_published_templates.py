"""The chat templates of llama.cpp's collection: the same text as transformers makes of the same messages."""

from __future__ import annotations

import copy
import json
from typing import Any
from unittest.mock import patch

import pytest
from jinja2.exceptions import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from server.chat.template.capabilities import reasoning_fields
from server.chat.template.render import ChatTemplate, TemplateFailed
from support.api.templates import SPECIAL_TOKENS, chat_template
from support.builders.vocabularies import models_dir
from support.quick import every

FILES = sorted((models_dir() / "templates").glob("*.jinja"), key=lambda path: path.name)
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi <there> 'é' \"🍕\""}
ARGUMENTS = {"city": 'Zürich "x"', "days": 2, "list": [1, {"a": None}], "wet": True}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather of a "city" <é>',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Its name"},
                    "days": {"type": "integer", "description": "How many"},
                    "units": {"type": "string", "description": "Of degrees", "enum": ["C", "F"]},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def call(arguments: Any, id: str = "call00001", name: str = "get_weather") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: str, id: str = "call00001") -> dict[str, Any]:
    return {"role": "tool", "name": "get_weather", "tool_call_id": id, "content": content}


def assistant(content: str | None, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def calling(arguments: Any, nothing: Any) -> dict[str, list[dict[str, Any]]]:
    calls = [call(arguments), call(nothing, "call00002", "now")]
    return {
        "a call": [USER, assistant("", tool_calls=calls[:1]), result('{"t": 3}')],
        "a call, content null": [SYSTEM, USER, assistant(None, tool_calls=calls[:1]), result("sunny")],
        "two calls": [
            SYSTEM,
            USER,
            assistant("Let me see", **reasoning_fields("hm"), tool_calls=calls),
            result("sunny"),
            result("12:00", "call00002"),
            assistant("It is sunny"),
            USER,
        ],
    }


TALKS = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "developer": [{"role": "developer", "content": "Be brief"}, USER],
    "several turns": [SYSTEM, USER, assistant(" yes \n"), {"role": "user", "content": ""}],
    "reasoning": [USER, assistant("yes", **reasoning_fields("hm")), USER],
    "reasoning last": [USER, assistant("yes", **reasoning_fields("hm"))],
    "reasoning in the content": [USER, assistant("<think>\nhm\n</think>\n\nyes"), USER],
    "the assistant last": [SYSTEM, USER, assistant("Once")],
    "parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ],
    "a system in the middle": [SYSTEM, USER, assistant("yes"), {**SYSTEM, "content": "Now"}, USER],
    "two of the user, two of the assistant": [USER, USER, assistant("yes"), assistant("no"), USER],
    "the assistant first": [assistant("yes"), USER],
    "only a system": [SYSTEM],
    "a result without a call": [USER, result("sunny"), assistant("yes"), USER],
    **calling(ARGUMENTS, {}),
    **{f"{name}, as text": talk for name, talk in calling(json.dumps(ARGUMENTS), "{}").items()},
}
EXTRA: list[dict[str, Any]] = [
    {},
    {"enable_thinking": False},
    {"enable_thinking": True, "reasoning_effort": "low", "documents": [{"title": "t", "text": "x"}]},
]


def expected(source: str, messages: Any, **options: Any) -> str | None:
    from transformers.utils import chat_template_utils as utils  # it takes a second

    try:
        # One template changes lists of its own, which transformers does not allow and llama.cpp does.
        with patch.object(utils, "ImmutableSandboxedEnvironment", SandboxedEnvironment):
            texts, _ = utils.render_jinja_template([copy.deepcopy(messages)], chat_template=source, **options)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return None
    text: str = texts[0]
    return text


def rendered(template: ChatTemplate, messages: Any, **options: Any) -> str | None:
    try:
        return template.render(messages, **options)
    except TemplateFailed:
        return None


def test_published_templates_are_present():
    assert len(FILES) > 60


@pytest.mark.parametrize("path", every(23, FILES), ids=lambda path: path.stem)
def test_rendered_text_equals_that_of_transformers(path):
    source = path.read_text(encoding="utf-8")
    template = chat_template(source)
    dates = {"date_string": "01 Jan 2026", "datetime": "Jan 01 2026"}
    functions = {"functions": "[]"} if "functions" in source else {}  # of one template
    different, created = [], 0
    for name, messages in TALKS.items():
        for tools in (None, TOOLS):
            own = {**dates, **functions, **({"xml_tools": tools} if "xml_tools" in source and tools else {})}
            for generate in (True, False):
                for extra in EXTRA if generate else EXTRA[:1]:
                    options = {"tools": tools, "add_generation_prompt": generate}
                    requested = expected(source, messages, **options, **extra, **own, **SPECIAL_TOKENS)
                    created += requested is not None
                    if rendered(template, messages, **options, extra={**extra, **own}) != requested:
                        different.append((name, tools is not None, generate, extra))
    assert not different
    assert created
