"""Which message orders a chat template accepts, determined by probing when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from server.chat.request import Tool
from server.chat.template.render import TemplateFailed, TemplateLimitExceeded

Message = dict[str, Any]
Render = Callable[[list[Message], Sequence[Tool]], str]  # raises TemplateFailed

_NAME, _ARGUMENT = "qq_tool", "qq_argument"
_PARAMETERS = {
    "type": "object",
    "properties": {_ARGUMENT: {"type": "string", "description": "an argument"}},
    "required": [_ARGUMENT],
}
SYSTEM_ROLES = ("system", "developer")
_REGULAR = ("user", "assistant", "user")
_REGULAR_CALL = ("user", "calls", "tool", "assistant", "user")


class AcceptedForms:
    """Remembers which forms one template accepts.

    A form is a short conversation, written as the kinds of its messages: a role, "calls" for an assistant
    message that calls a tool, "tool:other" for a result with an unknown id, "user:empty" (or another role)
    for a message without text. Every message of a probe has a unique text. The form is accepted if the
    template renders it and every text is in the prompt exactly once and in order; those of leading system
    messages may be anywhere, since some templates move them.
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], bool] = {}
        self._exceeded_limits = False  # then nothing more is tried: every probe may take as long

    def accepts(self, form: tuple[str, ...], render: Render) -> bool:
        """Whether the template accepts a form. The first time, it blocks for one or two renderings, about a
        millisecond.

        If the template does not even render a regular conversation (it may need variables that the request
        sets), probes are meaningless and every form counts as accepted.
        """
        if self._shows(form, render):
            return True
        return not self._shows(_REGULAR_CALL if _has_calls(form) else _REGULAR, render)

    def _shows(self, form: tuple[str, ...], render: Render) -> bool:
        known = self._shown.get(form)
        if known is None:
            known = self._shown[form] = self._probe(form, render)
        return known

    def _probe(self, form: tuple[str, ...], render: Render) -> bool:
        if self._exceeded_limits:
            return True
        tools = [Tool(_NAME, "a tool", _PARAMETERS, None, "")] if _has_calls(form) else []
        try:
            text = render(_conversation(form), tools)
        except TemplateFailed as failure:
            self._exceeded_limits = isinstance(failure, TemplateLimitExceeded)
            return False
        start = next((i for i, kind in enumerate(form) if kind not in SYSTEM_ROLES), len(form))
        words = [_word(i) for i, kind in enumerate(form) if not kind.endswith(":empty")]
        positions = [text.find(_word(i)) for i in range(start, len(form)) if _word(i) in words]
        return all(text.count(word) == 1 for word in words) and positions == sorted(positions)


def _has_calls(form: Sequence[str]) -> bool:
    return any(kind.split(":")[0] in ("calls", "tool") for kind in form)


def _conversation(form: Sequence[str]) -> list[Message]:
    messages: list[Message] = []
    id = "call00000"  # nine characters, which some templates require
    for i, kind in enumerate(form):
        role, _, variant = kind.partition(":")
        word = "" if variant == "empty" else _word(i)
        if kind == "calls":
            id = f"call{i:05}"
            function = {"name": _NAME, "arguments": f'{{"{_ARGUMENT}": "{word}"}}'}
            call = {"id": id, "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif role == "tool":
            result = "other0000" if variant == "other" else id
            messages.append({"role": role, "tool_call_id": result, "content": word})
        else:
            messages.append({"role": role, "content": word})
    return messages


def _word(i: int) -> str:
    return f"Qqtext{i:03}qQ"
