"""What the rendering process answers: the text, or a reason that is for the client."""

from __future__ import annotations

import pickle
import re
from datetime import datetime
from typing import Any
from unittest.mock import Mock

import pytest

from server.chat.template import child
from server.chat.template.child import FAILED, RENDERED, answer
from server.chat.template.render import TemplateFailed
from support.api.templates import render


def answered(source: str, variables: dict[str, Any] | None = None) -> tuple[bytes, str]:
    message = answer(pickle.dumps((source, variables)))
    return message[:1], message[1:].decode("utf-8", "surrogatepass")


def test_answer_keeps_surrogates() -> None:
    assert answered("{{ x }}é", {"x": "\ud800"}) == (RENDERED, "\ud800é")


def test_answer_without_variables_only_compiles() -> None:
    assert answered("{{ raise_exception('no') }}") == (RENDERED, "")
    kind, reason = answered("{% if %}")
    assert kind == FAILED
    assert reason.startswith("the model's chat template cannot be used: ")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles\\n must  alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "does something that is not allowed"),
        ("{{ 1 / 0 }}", "fails on these messages (ZeroDivisionError)"),
        ("{{ x + 1 }}", "fails on these messages (TypeError)"),
    ],
)
def test_answer_of_a_failure_is_one_line_without_python_details(source: str, reason: str) -> None:
    assert answered(source, {"x": "a"}) == (FAILED, f"the model's chat template {reason}")


def test_answer_that_is_too_long_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_OUTPUT", 3)
    assert answered("abc", {}) == (RENDERED, "abc")
    assert answered("abcd", {}) == (FAILED, "the model's chat template makes more than 3 characters")


@pytest.mark.parametrize("error", [MemoryError, SystemError("error return without exception set")])
@pytest.mark.parametrize("raises", ["_compiled", "render"])
def test_out_of_memory_ends_the_process(monkeypatch: pytest.MonkeyPatch, error: Any, raises: str) -> None:
    template = Mock(**{"render.side_effect": error})
    compiled = Mock(return_value=template) if raises == "render" else Mock(side_effect=error)
    monkeypatch.setattr(child, "_compiled", compiled)
    with pytest.raises((MemoryError, SystemError)):
        answered("a", {})


def test_extensions_of_transformers_are_available():
    assert render("{{ {'a': 'é<'} | tojson }}") == '{"a": "é<"}'
    assert render("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}") == '{\n  "a": 2,\n  "b": 1\n}'
    assert render("{% generation %}x{{ 1 }}{% endgeneration %}y") == "x1y"
    assert re.fullmatch(r"\d{4}", render("{{ strftime_now('%Y') }}"))
    assert render("{{ strftime_now('%Y') }}") in (str(datetime.now().year), str(datetime.now().year - 1))
    with pytest.raises(TemplateFailed, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages.__class__.__mro__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ (1).__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ strftime_now.__code__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__}'.format_map({}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ [].append.__self__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ namespace.__init__ }}",
    "{{ dict.mro() }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_template_that_tries_to_escape_sees_no_python_internals(source):
    try:
        text = render(source)
    except TemplateFailed as error:
        text = str(error)
    assert not re.search(r"<class|<function|<module|root:|subclasses|0x[0-9a-f]+|object at", text), text
