"""A conversation and its tools as one prompt, and what is to be known of where the answer begins."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.chat.chat_format import ChatFormat, ChatFormats
from server.chat.messages import Message, adapt_messages, text_of
from server.chat.request import ChatInput
from server.chat.template.capabilities import template_variables
from server.chat.template.sandbox import TemplateFailed
from server.chat.tool_calls.tool import Tool

TOKEN_BREAK = "\ufdd0"  # noncharacters, which no text may hold: breaks the texts of special tokens,
ANSWER_START = "\ufdd1"  # and stands where the answer begins
MAX_LEFT_OUT = 8
EFFORTS = ("reasoning_effort", "reasoning_strength")


@dataclass
class RenderedPrompt:
    """text: with MARKs. opened: it ends inside of reasoning. begun: inside of the answer's content."""

    chat_format: ChatFormat
    text: str
    opened: bool = False
    begun: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def plain(self) -> str:
        return self.text.replace(TOKEN_BREAK, "")


def render_prompt(asked: ChatInput, model: ChatFormats, specials: re.Pattern[str] | None) -> RenderedPrompt:
    """The prompt. Takes time: not for the event loop. Raises TemplateFailed and BadMessage.

    specials: texts of special tokens, which the conversation must not contain as such; None: it may.
    """
    chat_format = model.with_tools if asked.tools else model.plain
    shield = _Shield(specials)
    messages, last = _split(asked)
    variables = _variables(asked, chat_format)
    rendering = _Rendering(chat_format, asked.tools, {k: shield(v) for k, v in variables.items()}, shield)
    if last is not None:
        composed = _continued(rendering, messages, last, asked)
    else:
        generate = asked.add_generation_prompt is not False
        composed = RenderedPrompt(chat_format, rendering.text(messages, generate))
        composed.opened = generate and _is_opened(chat_format, composed.plain)
    composed.warnings = _left_out(composed.plain, asked.messages)
    effort = asked.reasoning.effort
    if effort not in (None, "none") and not any(name in chat_format.template.source for name in EFFORTS):
        composed.warnings.append(
            f"the effort of reasoning has no effect: the chat template takes no {EFFORTS[0]}"
        )
    return composed


class _Shield:
    """Copies values with MARK in every text of a special token.

    Tokenised piece by piece between the marks, such a text is text: only the template may say where a turn
    ends.
    """

    def __init__(self, specials: re.Pattern[str] | None) -> None:
        self.specials = specials

    def __call__(self, value: Any) -> Any:
        if self.specials is None:
            return value
        if isinstance(value, str):
            clean = value.replace(TOKEN_BREAK, "\ufffd")
            return self.specials.sub(lambda match: match[0][0] + TOKEN_BREAK + match[0][1:], clean)
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        return value


@dataclass
class _Rendering:
    chat_format: ChatFormat
    tools: Sequence[Tool]
    variables: dict[str, Any]
    shield: _Shield

    def text(self, messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        chat_format, capabilities = self.chat_format, self.chat_format.capabilities
        tools = [tool.wire() for tool in self.tools]
        shown = list(messages)
        if tools and not capabilities.tools:
            shown, tools = _described(shown, self.tools, chat_format), []
        if not (capabilities.calls and capabilities.results):
            shown = _spelled(shown)
        fitted: Any = self.shield(chat_format.call_format.adapt_messages(adapt_messages(shown, capabilities)))
        try:
            return self._render(fitted, tools, generate)
        except TemplateFailed:
            described = [_with_descriptions(tool) for tool in tools]
            if described == tools:
                raise
            return self._render(fitted, described, generate)

    def _render(self, messages: Any, tools: list[dict[str, Any]], generate: bool) -> str:
        chat_format, shielded = self.chat_format, self.shield(tools)
        return chat_format.template.render(
            messages,
            tools=shielded if tools else [] if chat_format.capabilities.empty_tools else None,
            add_generation_prompt=generate,
            extra={**template_variables(chat_format.template.source, shielded), **self.variables},
        )


def _with_descriptions(tool: dict[str, Any]) -> dict[str, Any]:
    """Some templates cannot do without a description of every argument."""
    function = tool["function"]
    properties = function["parameters"].get("properties")
    if not isinstance(properties, dict):
        return tool
    told = {
        name: {"description": "", **value} if isinstance(value, dict) else value
        for name, value in properties.items()
    }
    return {**tool, "function": {**function, "parameters": {**function["parameters"], "properties": told}}}


def _variables(asked: ChatInput, chat_format: ChatFormat) -> dict[str, Any]:
    """Of reasoning, in the names that templates have for it; what the request sets itself goes first."""
    reasoning = asked.reasoning
    found: dict[str, Any] = {"enable_thinking": reasoning.enabled is not False}
    if reasoning.enabled is not None:
        found["thinking"] = reasoning.enabled
    if reasoning.effort not in (None, "none"):
        found |= dict.fromkeys(EFFORTS, reasoning.effort)
    return {**found, **asked.extra}


def _split(asked: ChatInput) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any] | None]:
    """The messages before the one that the answer continues, and that one."""
    if not asked.continues:
        return asked.messages, None
    return asked.messages[:-1], asked.messages[-1]


def _continued(
    rendering: _Rendering, messages: Sequence[Mapping[str, Any]], last: Mapping[str, Any], asked: ChatInput
) -> RenderedPrompt:
    """The prompt up to the end of the last message's text, or of its reasoning."""
    chat_format = rendering.chat_format
    content, reasoning = text_of(last.get("content"), "\n\n"), last.get("reasoning_content") or ""
    thinks = asked.continue_final_message == "reasoning_content" or bool(reasoning and not content)
    place, start = ("reasoning_content", reasoning) if thinks else ("content", content)
    try:
        text = rendering.text([*messages, {**last, "content": content, place: ANSWER_START + start}], False)
    except TemplateFailed:
        text = ""
    before, found, _ = text.rpartition(ANSWER_START)
    if not found:
        before = rendering.text(messages, True)
        markers, opened = chat_format.markers, _is_opened(chat_format, before.replace(TOKEN_BREAK, ""))
        if thinks and not opened:
            if markers is None:
                raise TemplateFailed("the model's chat template has no place for reasoning_content")
            before += f"{markers.start}\n"
        elif opened and not thinks and markers is not None:
            before += f"{reasoning}\n{markers.end}\n\n"
    return RenderedPrompt(chat_format, before + rendering.shield(start), opened=thinks, begun=not thinks)


def _is_opened(chat_format: ChatFormat, text: str) -> bool:
    return chat_format.markers is not None and text.rstrip().endswith(chat_format.markers.start.strip())


def _described(
    messages: list[Mapping[str, Any]], tools: Sequence[Tool], chat_format: ChatFormat
) -> list[Mapping[str, Any]]:
    """For templates that show no tools: the system tells of them."""
    example = chat_format.call_format.example()
    described = json.dumps([tool.wire()["function"] for tool in tools], ensure_ascii=False, indent=1)
    text = (
        f"You can call these tools, described as JSON:\n{described}\n\n"
        f"To call tools, answer with nothing but calls in exactly this form:\n{example}\n\n"
        "Call a tool only where it helps; otherwise answer in plain text."
    )
    if messages and messages[0]["role"] in ("system", "developer"):
        first = text_of(messages[0].get("content"))
        return [{**messages[0], "content": f"{first}\n\n{text}" if first else text}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _spelled(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """For templates that show no calls or no results: they are text of the assistant and of the user."""
    spelled: list[Mapping[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if calls := message.get("tool_calls"):
            names |= {call.get("id", ""): call["function"]["name"] for call in calls}
            text = json.dumps({"tool_calls": [_spelled_call(call) for call in calls]}, ensure_ascii=False)
            content = text_of(message.get("content"))
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            spelled.append({**rest, "content": f"{content}\n{text}" if content else text})
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""))
            result = {"name": name, "content": text_of(message.get("content"))}
            _add_user(spelled, json.dumps({"tool_response": result}, ensure_ascii=False))
        elif message["role"] == "user" and spelled and spelled[-1].get("role") == "result":
            _add_user(spelled, text_of(message.get("content")))
        else:
            spelled.append(message)
    return [{**m, "role": "user"} if m["role"] == "result" else m for m in spelled]


def _add_user(messages: list[Mapping[str, Any]], text: str) -> None:
    """Results that follow each other are one turn: many templates want users and assistants to alternate."""
    if messages and messages[-1]["role"] == "result":
        messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n{text}"}
    else:
        messages.append({"role": "result", "content": text})


def _spelled_call(call: Mapping[str, Any]) -> Message:
    text = call["function"].get("arguments") or "{}"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = text
    return {"name": call["function"]["name"], "arguments": arguments}


def _left_out(text: str, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings of messages that the template does not show."""
    warnings: list[str] = []
    position = 0  # messages mostly come in order: so all of them are found in one pass
    for i, message in enumerate(messages):
        content = message.get("content")
        pieces = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        for name, piece in [*(("", piece) for piece in pieces), *_reasoning(message)]:
            clean = piece.replace(TOKEN_BREAK, "\ufffd").strip()
            found = text.find(clean, position)
            if found >= 0:
                position = found + len(clean)
            elif clean not in text and json.dumps(clean, ensure_ascii=False)[1:-1] not in text:
                warnings.append(f"messages[{i}]{name} has no effect: the chat template leaves it out")
                break
        if len(warnings) == MAX_LEFT_OUT:
            break
    return warnings


def _reasoning(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    reasoning = message.get("reasoning_content")
    return [(".reasoning_content", reasoning)] if reasoning else []
