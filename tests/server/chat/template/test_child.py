"""What the rendering process answers: the text, or a reason that is for the client."""

from __future__ import annotations

import pickle
from typing import Any
from unittest.mock import Mock

import pytest

from server.chat.template import child
from server.chat.template.child import FAILED, RENDERED, answer


def answered(source: str, variables: dict[str, Any] | None = None) -> tuple[bytes, str]:
    message = answer(pickle.dumps((source, variables)))
    return message[:1], message[1:].decode("utf-8", "surrogatepass")


def test_answer_is_the_text_with_surrogates_as_they_are() -> None:
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
def test_answer_of_a_failure_is_a_line_without_python(source: str, reason: str) -> None:
    assert answered(source, {"x": "a"}) == (FAILED, f"the model's chat template {reason}")


def test_answer_that_is_too_long_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_OUTPUT", 3)
    assert answered("abc", {}) == (RENDERED, "abc")
    assert answered("abcd", {}) == (FAILED, "the model's chat template makes more than 3 characters")


@pytest.mark.parametrize("error", [MemoryError, SystemError("error return without exception set")])
@pytest.mark.parametrize("raises", ["_compiled", "render"])
def test_a_lack_of_memory_ends_the_process(monkeypatch: pytest.MonkeyPatch, error: Any, raises: str) -> None:
    template = Mock(**{"render.side_effect": error})
    compiled = Mock(return_value=template) if raises == "render" else Mock(side_effect=error)
    monkeypatch.setattr(child, "_compiled", compiled)
    with pytest.raises((MemoryError, SystemError)):
        answered("a", {})
