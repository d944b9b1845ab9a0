"""A conversation and its tools as one prompt, and the state in which the answer begins."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from engine import exact_json
from engine.types import Constraint, Thinking
from server.chat.chat_format import ChatFormat, ChatFormats
from server.chat.message_order import OrderedMessages, order_messages
from server.chat.messages import (
    InvalidMessage,
    Message,
    MessageRefused,
    adapt_messages,
    calls_as_text,
    pair_calls,
    text_of,
)
from server.chat.output import OutputParser
from server.chat.reasoning import ReasoningMarkers, ReasoningParser, ReasoningThenCallsParser
from server.chat.request import ChatInput
from server.chat.template.capabilities import template_variables
from server.chat.template.sandbox import TemplateFailed, TemplateLimitExceeded
from server.chat.tool_calls.tool import Tool
from server.chat.tool_calls.tool_call_format import ToolOptions

# Noncharacters, which are removed from what clients send.
_TOKEN_BREAK = "\ufdd0"  # within the texts of special tokens
_ANSWER_START = "\ufdd1"  # where the answer begins
MAX_WARNINGS = 8
_LETTERS = string.ascii_letters + string.digits
EFFORTS = ("reasoning_effort", "reasoning_strength")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt on its way to the engine: rendered first, then tokenized and checked against the model.

    chat_format: None: no conversation, but a text to continue. pieces: to be tokenized one by one, so that no
    text of a client becomes a special token. opened: it ends within reasoning. in_content: it ends within the
    content of the answer. tools: those that may be called. raw_reasoning: reasoning stays in the content.
    echo: the text with which the output begins.
    """

    chat_format: ChatFormat | None = None
    pieces: Sequence[str] = ()
    opened: bool = False
    in_content: bool = False
    warnings: Sequence[str] = ()
    tokens: list[int] = field(default_factory=list)
    tools: ToolOptions | None = None
    raw_reasoning: bool = False
    constraint: Constraint | None = None
    thinking: Thinking | None = None
    echo: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reasoning_markers(self) -> ReasoningMarkers | None:
        """None: the answer cannot begin with reasoning."""
        markers = None if self.chat_format is None else self.chat_format.markers
        if markers is None or self.in_content or (markers.only_opened and not self.opened):
            return None
        return markers

    def new_parser(self) -> OutputParser | None:
        """Parses one answer to the prompt; None: it is plain text."""
        if self.chat_format is None:
            return None
        tools, call_format, raw = self.tools, self.chat_format.call_format, self.raw_reasoning
        new_id = _short_call_id if call_format.short_ids else _call_id
        if (whole := call_format.new_answer_parser(tools, new_id, self.text, raw)) is not None:
            return whole
        calls = None if tools is None else call_format.new_parser(tools, new_id)
        markers = self.reasoning_markers
        if markers is None:
            return calls
        return ReasoningThenCallsParser(ReasoningParser(markers, self.opened, raw), calls, raw)

    def preserved_tokens(self) -> frozenset[int]:
        """Special tokens whose text the parser needs."""
        if self.chat_format is None:
            return frozenset()
        return self.chat_format.preserved_tokens(self.tools is not None, self.reasoning_markers is not None)


def _call_id() -> str:
    return "call_" + secrets.token_hex(12)


def _short_call_id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def render_prompt(chat: ChatInput, formats: ChatFormats, special_tokens: re.Pattern[str] | None) -> Prompt:
    """The prompt. Blocks: not for the event loop. Raises TemplateFailed, InvalidMessage and ApiError.

    special_tokens: matches their texts, which then are plain text in the conversation; None: they are tokens.
    """
    chat.check_turns()
    chat_format = formats.with_tools if chat.tools else formats.plain
    split_tokens = _TokenSplitter(special_tokens)
    variables = {k: split_tokens(v) for k, v in _reasoning_variables(chat).items()}
    rendering = _Rendering(chat_format, chat.tools, variables, split_tokens)
    ordered = order_messages(pair_calls(chat.messages), partial(_accepts, chat_format), chat.continues)
    try:
        text, opened = _render(rendering, chat, ordered.messages)
    except InvalidMessage:
        adapt_messages(chat.messages, chat_format.capabilities)  # names the message by the client's number
        raise
    except TemplateLimitExceeded:
        raise
    except TemplateFailed as failure:
        raise _find_refused(rendering, ordered) or failure from None
    pieces = [text] if special_tokens is None else text.split(_TOKEN_BREAK)
    warnings = [*ordered.warnings, *_omitted("".join(pieces), chat.messages)]
    effort = chat.reasoning.effort
    if effort not in (None, "none") and not any(name in chat_format.template.source for name in EFFORTS):
        warnings.append(f"the reasoning effort has no effect: the chat template does not use {EFFORTS[0]}")
    in_content = chat.continues and not opened
    return Prompt(
        chat_format=chat_format, pieces=pieces, opened=opened, in_content=in_content, warnings=warnings
    )


def _render(rendering: _Rendering, chat: ChatInput, messages: list[Message]) -> tuple[str, bool]:
    """The prompt, and whether it ends within reasoning. messages: in their final order."""
    if chat.continues:
        return _render_continued(rendering, replace(chat, messages=messages))
    generate = chat.add_generation_prompt is not False
    text = rendering.text(messages, generate)
    return text, generate and _is_opened(rendering.chat_format, text)


def _accepts(chat_format: ChatFormat, form: tuple[str, ...]) -> bool:
    """Whether the template accepts an order of messages."""

    def render(messages: list[Message], tools: Sequence[Tool]) -> str:
        shown = tools if chat_format.capabilities.tools else ()
        rendering = _Rendering(chat_format, shown, {"enable_thinking": True}, _TokenSplitter(None))
        return rendering.text(messages, messages[-1]["role"] != "assistant")

    return chat_format.accepted_forms.accepts(form, render)


def _find_refused(rendering: _Rendering, ordered: OrderedMessages) -> MessageRefused | None:
    """The message from which on the template fails. None: it does not depend on the messages."""

    def fails(messages: list[Message]) -> str | None:
        try:
            rendering.text(messages, messages[-1]["role"] != "assistant")
        except TemplateFailed as failure:
            return str(failure)
        return None

    messages = ordered.messages
    reason = fails(messages) if messages else None
    if reason is None or fails([{"role": "user", "content": "Hello"}]):
        return None
    rendered, failing = 0, len(messages)  # numbers of messages
    while failing - rendered > 1:
        middle = (rendered + failing) // 2
        if fails(messages[:middle]):
            failing = middle
        else:
            rendered = middle
    role = messages[rendered]["role"]
    return MessageRefused(f"[{ordered.indices[rendered]}]", f"the {role} message cannot stand here: {reason}")


class _TokenSplitter:
    """Copies values with _TOKEN_BREAK within every text of a special token.

    When the pieces between are tokenized one by one, such a text is plain text: only the template may end a
    turn.
    """

    def __init__(self, special_tokens: re.Pattern[str] | None) -> None:
        self.special_tokens = special_tokens

    def __call__(self, value: Any) -> Any:
        if self.special_tokens is None:
            return value
        if isinstance(value, str):
            clean = value.replace(_TOKEN_BREAK, "\ufffd")
            return self.special_tokens.sub(lambda match: match[0][0] + _TOKEN_BREAK + match[0][1:], clean)
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        return value


@dataclass
class _Rendering:
    """Renders messages, with what is the same for all renderings of a request."""

    chat_format: ChatFormat
    tools: Sequence[Tool]
    variables: dict[str, Any]
    split_tokens: _TokenSplitter

    def text(self, messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        chat_format, capabilities = self.chat_format, self.chat_format.capabilities
        tools = [tool.wire() for tool in self.tools]
        messages = list(messages)
        if tools and not capabilities.tools:
            messages, tools = _describe_tools(messages, self.tools, chat_format), []
        if not (capabilities.calls and capabilities.results):
            messages = _calls_as_text(messages)
        adapted = chat_format.call_format.adapt_messages(adapt_messages(messages, capabilities))
        safe: list[Message] = self.split_tokens(adapted)
        try:
            return self._render(safe, tools, generate)
        except TemplateFailed:
            described = [_with_descriptions(tool) for tool in tools]
            if described == tools:
                raise
            return self._render(safe, described, generate)

    def _render(self, messages: list[Message], tools: list[dict[str, Any]], generate: bool) -> str:
        chat_format, safe_tools = self.chat_format, self.split_tokens(tools)
        return chat_format.template.render(
            messages,
            tools=safe_tools if tools else [] if chat_format.capabilities.empty_tools else None,
            add_generation_prompt=generate,
            extra={**template_variables(chat_format.template.source, safe_tools), **self.variables},
        )


def _with_descriptions(tool: dict[str, Any]) -> dict[str, Any]:
    """With a description of every argument, without which some templates fail."""
    function = tool["function"]
    properties = function["parameters"].get("properties")
    if not isinstance(properties, dict):
        return tool
    described = {
        name: {"description": "", **value} if isinstance(value, dict) else value
        for name, value in properties.items()
    }
    parameters = {**function["parameters"], "properties": described}
    return {**tool, "function": {**function, "parameters": parameters}}


def _reasoning_variables(chat: ChatInput) -> dict[str, Any]:
    """The options of reasoning, by the names that templates use. Variables of the request come first."""
    reasoning = chat.reasoning
    variables: dict[str, Any] = {"enable_thinking": reasoning.enabled is not False}
    if reasoning.enabled is not None:
        variables["thinking"] = reasoning.enabled
    if reasoning.effort not in (None, "none"):
        variables |= dict.fromkeys(EFFORTS, reasoning.effort)
    return {**variables, **chat.extra}


def _render_continued(rendering: _Rendering, chat: ChatInput) -> tuple[str, bool]:
    """The prompt up to the end of the last message's content or reasoning, and whether it is reasoning."""
    chat_format, messages, last = rendering.chat_format, chat.messages[:-1], chat.messages[-1]
    content, reasoning = text_of(last.get("content"), "\n\n"), last.get("reasoning_content") or ""
    in_reasoning = chat.continue_final_message == "reasoning_content" or bool(reasoning and not content)
    field_name, start = ("reasoning_content", reasoning) if in_reasoning else ("content", content)
    continued = {**last, "content": content, field_name: _ANSWER_START + start}
    try:
        text = rendering.text([*messages, continued], False)
    except TemplateFailed:
        text = ""
    before, shown, _ = text.rpartition(_ANSWER_START)
    if not shown:
        before = rendering.text(messages, True)
        markers, opened = chat_format.markers, _is_opened(chat_format, before)
        if in_reasoning and not opened:
            if markers is None:
                raise TemplateFailed("the model's chat template has no place for reasoning_content")
            before += f"{markers.start}\n"
        elif opened and not in_reasoning and markers is not None:
            before += f"{reasoning}\n{markers.end}\n\n"
    return before + rendering.split_tokens(start), in_reasoning


def _is_opened(chat_format: ChatFormat, text: str) -> bool:
    """Whether a prompt ends with the marker that begins reasoning."""
    end = text.replace(_TOKEN_BREAK, "").rstrip()
    return chat_format.markers is not None and end.endswith(chat_format.markers.start.strip())


def _describe_tools(
    messages: list[Mapping[str, Any]], tools: Sequence[Tool], chat_format: ChatFormat
) -> list[Mapping[str, Any]]:
    """For templates that do not render tools: describe them in the system message."""
    example = chat_format.call_format.example()
    described = exact_json.write([tool.wire()["function"] for tool in tools], ensure_ascii=False, indent=1)
    text = (
        f"You can call these tools, described as JSON:\n{described}\n\n"
        f"To call tools, answer with nothing but calls in exactly this form:\n{example}\n\n"
        "Call a tool only where it helps; otherwise answer in plain text."
    )
    if messages and messages[0]["role"] in ("system", "developer"):
        first = text_of(messages[0].get("content"))
        return [{**messages[0], "content": f"{first}\n\n{text}" if first else text}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _calls_as_text(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """For templates that do not render calls or results: write them as text of the assistant and the user."""
    written: list[Mapping[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if calls := message.get("tool_calls"):
            names |= {call.get("id", ""): call["function"]["name"] for call in calls}
            text = calls_as_text(calls)
            content = text_of(message.get("content"))
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            written.append({**rest, "content": f"{content}\n{text}" if content else text})
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""))
            result = {"name": name, "content": text_of(message.get("content"))}
            _add_result_text(written, exact_json.write({"tool_response": result}, ensure_ascii=False))
        elif message["role"] == "user" and written and written[-1].get("role") == "result":
            _add_result_text(written, text_of(message.get("content")))
        else:
            written.append(message)
    return [{**m, "role": "user"} if m["role"] == "result" else m for m in written]


def _add_result_text(messages: list[Mapping[str, Any]], text: str) -> None:
    """Append to a turn of results: many templates require users and assistants to alternate."""
    if messages and messages[-1]["role"] == "result":
        messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n{text}"}
    else:
        messages.append({"role": "result", "content": text})


def _omitted(text: str, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about messages that the prompt does not contain."""
    warnings: list[str] = []
    position = 0  # messages are mostly in order, so that one pass finds all of them
    for i, message in enumerate(messages):
        content = message.get("content")
        pieces = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
        for name, piece in [*(("", piece) for piece in pieces), *_reasoning_of(message)]:
            clean = piece.replace(_TOKEN_BREAK, "\ufffd").strip()
            start = text.find(clean, position)
            if start >= 0:
                position = start + len(clean)
            elif clean not in text and json.dumps(clean, ensure_ascii=False)[1:-1] not in text:
                warnings.append(f"messages[{i}]{name} has no effect: the chat template leaves it out")
                break
        if len(warnings) == MAX_WARNINGS:
            break
    return warnings


def _reasoning_of(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    reasoning = message.get("reasoning_content")
    return [(".reasoning_content", reasoning)] if reasoning else []
