"""The Jinja environment of chat templates, which come with model files and are untrusted.

It is set up as in `transformers`: trim_blocks, lstrip_blocks, loop controls, {% generation %},
raise_exception, strftime_now, and its tojson. Unlike there, templates may change their own lists, as Kimi
K2's does and llama.cpp allows; no other rendering sees the change. Jinja's sandbox keeps a template from
reaching the system, but not from running forever or filling memory; `server.chat.template.render` does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import SandboxedEnvironment

from engine import exact_json


class _Generation(Extension):
    """{% generation %} … {% endgeneration %} encloses the assistant's text. It is rendered as its content."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def chat_environment() -> SandboxedEnvironment:
    """The environment, without a loader: a template cannot include another one."""
    environment = SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters |= {"tojson": _tojson, "split": str.split}
    del environment.filters["attr"]  # of use for escapes only
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _raise_exception(message: str) -> None:
    """The function with which a template refuses a conversation."""
    raise TemplateError(str(message)[:500])


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return exact_json.write(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
