"""What a chat template supports. Templates do not declare it, so it is determined by probing.

A probe renders a short conversation with recognizable texts and looks for them in the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.chat.template.render import ChatTemplate, TemplateFailed, TemplateLimitExceeded

_WORD = "QqTextqQ"  # in none of the templates
_OTHER = "QqOtherqQ"
_NAME, _SECOND, _ARGUMENT = "qq_tool", "qq_second", "qq_argument"
_SHORT_ID, _LONG_ID = "call00001", "call_0123456789abcdef"  # some templates want exactly nine characters
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "a tool",
        "parameters": {
            "type": "object",
            "properties": {_ARGUMENT: {"type": "string", "description": "an argument"}},
            "required": [_ARGUMENT],
        },
    },
}

Message = Mapping[str, Any]


@dataclass(frozen=True)
class TemplateCapabilities:
    """Which parts of a conversation a template renders, and the form in which it expects them."""

    empty_tools: bool = False  # needs a list of tools even if there are none
    string_content: bool = True
    typed_content: bool = False  # content as a list of parts
    system: bool = True
    developer: bool = False
    tools: bool = False
    calls: bool = False  # tool calls of earlier turns
    parallel_calls: bool = False
    results: bool = False  # messages of the role tool
    object_arguments: bool = False  # arguments of calls as an object, not as JSON text
    null_content: bool = False  # content may be null where there are calls
    one_text_per_call: bool = False  # reasoning or content, not both
    short_ids: bool = False  # call ids must have nine characters
    reasoning: bool = False  # reasoning of earlier turns, or at least of the last one
    thinking_parts: bool = False  # as parts of the content


def probe_capabilities(template: ChatTemplate) -> TemplateCapabilities:
    """Probe a template. Takes about twenty renderings, some 10 ms."""
    probe = _Probe(template)
    user: dict[str, Any] = {"role": "user", "content": _WORD}
    probe.no_tools = next(
        (tools for tools in (None, [], [_TOOL]) if probe.render([user], tools) is not None), None
    )
    string = probe.shows(_WORD, [user])
    parts = [{"role": "user", "content": [{"type": "text", "text": _WORD}]}]
    typed = (
        probe.shows(_WORD, parts) and not probe.shows("'text'", parts) and not probe.shows('"text"', parts)
    )
    wrap: Callable[[Any], Any] = (
        (lambda text: [{"type": "text", "text": text}]) if typed and not string else (lambda text: text)
    )
    user = {"role": "user", "content": wrap("Hello")}
    tools = probe.shows(_NAME, [user], [_TOOL])
    some_tools = [_TOOL] if tools else None
    calls = _calls(probe, user, wrap, some_tools) if tools or "tool_calls" in template.source else {}
    return TemplateCapabilities(
        empty_tools=probe.no_tools == [],
        string_content=string or not typed,
        typed_content=typed,
        system=probe.shows(_WORD, [{"role": "system", "content": wrap(_WORD)}, user]),
        developer="developer" in template.source
        and probe.shows(_WORD, [{"role": "developer", "content": wrap(_WORD)}, user]),
        tools=tools,
        reasoning=any(
            probe.shows(
                _WORD,
                [
                    user,
                    {"role": "assistant", "content": wrap("Yes"), **reasoning_fields(_WORD), **more},
                    *after,
                ],
                some_tools if more else None,
            )
            for more, after in (
                ({}, []),
                ({}, [user]),
                ({"tool_calls": [_call({_ARGUMENT: "x"}, _SHORT_ID)]}, [_result(_SHORT_ID)]),
            )
        ),
        thinking_parts="'thinking'" in template.source
        and probe.shows(_WORD, [user, {"role": "assistant", "content": thinking_parts(_WORD, "Yes")}]),
        **calls,
    )


def _calls(
    probe: _Probe, user: Message, wrap: Callable[[Any], Any], some_tools: list[Any] | None
) -> dict[str, bool]:
    def messages(
        arguments: Any, content: Any, id: str = _SHORT_ID, more: Sequence[Any] = ()
    ) -> list[Message]:
        calling = {"role": "assistant", "content": content, "tool_calls": [_call(arguments, id), *more]}
        return [user, calling, _result(id)]

    empty, value = wrap(""), {_ARGUMENT: _WORD}
    text = json.dumps(value)
    as_object = probe.render(messages(value, empty), some_tools)
    as_text = probe.render(messages(text, empty), some_tools)
    # Neither an object in Python's syntax nor text that was escaped again is JSON.
    good_object = as_object is not None and _WORD in as_object and f"{{'{_ARGUMENT}'" not in as_object
    good_text = as_text is not None and text in as_text
    objects = good_object or not good_text
    best = value if objects else text
    shown = (as_object if objects else as_text) or ""
    null = probe.render(messages(best, None), some_tools)
    second = {**_call(best, "call00002"), "function": {"name": _SECOND, "arguments": best}}
    long_id = probe.render(messages(best, empty, _LONG_ID), some_tools)
    calling = {**messages(best, wrap("Yes"))[1], **reasoning_fields("Hm")}
    both = probe.render([user, calling, _result(_SHORT_ID)], some_tools)
    return {
        "calls": _NAME in shown and _WORD in shown,
        "object_arguments": objects,
        "one_text_per_call": bool(shown) and both is None,
        "null_content": null is not None and "None" not in null,
        "short_ids": bool(shown) and long_id is None,
        "parallel_calls": probe.shows(_SECOND, messages(best, empty, more=[second]), some_tools),
        "results": _OTHER in shown,
    }


def thinking_parts(reasoning: str, content: str) -> list[dict[str, str]]:
    """The content of a message with its reasoning, as Mistral's templates expect it."""
    text = [{"type": "text", "text": content}] if content else []
    return [{"type": "thinking", "thinking": reasoning}, *text]


def reasoning_fields(text: str) -> dict[str, str]:
    """The reasoning of a message under the names that templates use for it."""
    return {"reasoning_content": text, "reasoning": text, "thinking": text}


def _call(arguments: Any, id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": _NAME, "arguments": arguments}}


def _result(id: str) -> dict[str, Any]:
    return {"role": "tool", "name": _NAME, "tool_call_id": id, "content": _OTHER}


class _Probe:
    """no_tools: the value for "no tools", which some templates need as a list."""

    def __init__(self, template: ChatTemplate, no_tools: list[Any] | None = None) -> None:
        self.template, self.no_tools = template, no_tools
        self._exceeded_limits = False  # then nothing more is tried: every probe may take as long

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str | None:
        if self._exceeded_limits:
            return None
        tools = self.no_tools if tools is None else tools
        try:
            return self.template.render(messages, tools=tools, add_generation_prompt=False)
        except TemplateFailed as failure:
            self._exceeded_limits = isinstance(failure, TemplateLimitExceeded)
            return None

    def shows(self, text: str, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> bool:
        return text in (self.render(messages, tools) or "")
