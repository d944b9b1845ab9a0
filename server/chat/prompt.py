"""Renders a conversation and its tools as one prompt, and determines the state in which the answer begins."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from engine.types import Constraint, Thinking
from server.chat.chat_format import ChatFormat, ChatFormats
from server.chat.message_order import OrderedMessages, order_messages
from server.chat.message_places import TOKEN_BREAK, find_places
from server.chat.messages import (
    InvalidMessage,
    Message,
    MessageRefused,
    adapt_messages,
    pair_calls,
    text_of,
)
from server.chat.output import OutputParser
from server.chat.reasoning import ReasoningMarkers, ReasoningParser, ReasoningThenCallsParser
from server.chat.request import ChatInput
from server.chat.template.capabilities import template_variables
from server.chat.template.sandbox import TemplateFailed, TemplateLimitExceeded
from server.chat.tool_calls.tool import Tool, check_tools
from server.chat.tool_calls.tool_call_format import ToolOptions, WritableFormat
from server.chat.tool_text import calls_as_user_text, describe_tools, insert_written, write_calls

_ANSWER_START = "\ufdd1"  # where the answer begins: a noncharacter, like TOKEN_BREAK
_LETTERS = string.ascii_letters + string.digits
EFFORTS = ("reasoning_effort", "reasoning_strength", "thinking_effort")
_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt on its way to the engine: rendered first, then tokenized and checked against the model.

    chat_format: None for a text to continue instead of a conversation. pieces: tokenized one by one, so that
    no text of a client becomes a special token. turn: places in the text, see `MessagePlaces`; boundaries:
    the same in tokens. opened: the prompt ends within reasoning. in_content: it ends within the content of
    the answer. tools: those that may be called. raw_reasoning: reasoning stays in the content. echo: the text
    with which the output begins.
    """

    chat_format: ChatFormat | None = None
    pieces: Sequence[str] = ()
    turn: tuple[int, ...] = ()
    opened: bool = False
    in_content: bool = False
    warnings: Sequence[str] = ()
    tokens: list[int] = field(default_factory=list)
    boundaries: list[int] = field(default_factory=list)
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
        """The markers; None if the answer cannot begin with reasoning."""
        markers = None if self.chat_format is None else self.chat_format.markers
        if markers is None or self.in_content or (markers.only_opened and not self.opened):
            return None
        return markers

    def new_parser(self) -> OutputParser | None:
        """A parser of one answer to the prompt; None if the answer is plain text."""
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

    def output_constraint(self, answer: Constraint | None) -> Constraint | None:
        """The constraint on the output. answer: the content when no tool is called; known to compile.

        Blocks, so do not call it in the event loop. Raises UnsupportedSchema.
        """
        return answer if self.chat_format is None else self.chat_format.output_constraint(self.tools, answer)

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
    """Render the prompt. Blocks, so do not call it in the event loop. Raises TemplateFailed, InvalidMessage
    and ApiError.

    special_tokens: matches their texts, which then are plain text in the conversation; None: they become
    tokens.
    """
    check_tools(chat.tools, chat.tool_choice, chat.schema_field)
    chat.check_turns()
    chat_format = formats.with_tools if chat.tools else formats.plain
    split_tokens = _TokenSplitter(special_tokens)
    variables = {
        k: split_tokens(v) for k, v in _reasoning_variables(chat, chat_format.template.source).items()
    }
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
        effort = _accepted_effort(rendering, chat.reasoning.effort)
        if effort is None:
            raise _find_refused(rendering, ordered) or failure from None
        unknown = f"the chat template does not know the reasoning effort {chat.reasoning.effort!r}"
        ordered.warnings.append(f"{unknown}; {effort!r} is used")
        text, opened = _render(rendering, chat, ordered.messages)
    pieces = [text] if special_tokens is None else text.split(TOKEN_BREAK)
    places = find_places("".join(pieces), chat.messages, reasons=chat_format.markers is not None)
    warnings = [*ordered.warnings, *places.warnings]
    effort = chat.reasoning.effort
    if effort not in (None, "none") and not any(name in chat_format.template.source for name in EFFORTS):
        warnings.append(f"the reasoning effort has no effect: the chat template does not use {EFFORTS[0]}")
    return Prompt(
        chat_format=chat_format,
        pieces=pieces,
        turn=places.turn,
        opened=opened,
        in_content=chat.continues and not opened,
        warnings=warnings,
        tools=chat_format.tool_options(chat),
        raw_reasoning=chat.reasoning.format == "none",
    )


def _render(rendering: _Rendering, chat: ChatInput, messages: list[Message]) -> tuple[str, bool]:
    """The prompt, and whether it ends within reasoning. messages: in their final order."""
    if chat.continues:
        return _render_continued(rendering, replace(chat, messages=messages))
    generate = chat.add_generation_prompt is not False
    text = rendering.text(messages, generate)
    return text, generate and _is_opened(rendering.chat_format, text)


def _accepted_effort(rendering: _Rendering, effort: str | None) -> str | None:
    """The nearest effort that the template accepts; None if the effort is not the reason for the failure."""
    if effort not in _LEVELS:
        return None
    place = _LEVELS.index(effort)
    nearest = sorted(range(len(_LEVELS)), key=lambda i: (abs(i - place), i < place))
    for level in map(_LEVELS.__getitem__, nearest):
        rendering.variables |= dict.fromkeys(EFFORTS, level)
        try:
            rendering.text([{"role": "user", "content": "Hello"}], True)
        except TemplateFailed:
            continue
        return None if level == effort else level
    return None


def _accepts(chat_format: ChatFormat, form: tuple[str, ...]) -> bool:
    """Whether the template accepts an order of messages."""

    def render(messages: list[Message], tools: Sequence[Tool]) -> str:
        shown = tools if chat_format.capabilities.tools else ()
        rendering = _Rendering(chat_format, shown, {"enable_thinking": True}, _TokenSplitter(None))
        return rendering.text(messages, messages[-1]["role"] != "assistant")

    return chat_format.accepted_forms.accepts(form, render)


def _find_refused(rendering: _Rendering, ordered: OrderedMessages) -> MessageRefused | None:
    """The first message with which the template fails. None: it does not depend on the messages."""

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
    """Copies values with TOKEN_BREAK within every text of a special token.

    When the pieces between the breaks are tokenized one by one, such a text stays plain text: only the
    template may end a turn.
    """

    def __init__(self, special_tokens: re.Pattern[str] | None) -> None:
        self.special_tokens = special_tokens

    def __call__(self, value: Any) -> Any:
        if self.special_tokens is None:
            return value
        if isinstance(value, str):
            clean = value.replace(TOKEN_BREAK, "\ufffd")
            return self.special_tokens.sub(lambda match: match[0][0] + TOKEN_BREAK + match[0][1:], clean)
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        return value


@dataclass
class _Rendering:
    """Renders messages with the arguments that are the same for all renderings of a request."""

    chat_format: ChatFormat
    tools: Sequence[Tool]
    variables: dict[str, Any]
    split_tokens: _TokenSplitter

    def text(self, messages: Sequence[Mapping[str, Any]], generate: bool) -> str:
        chat_format, capabilities = self.chat_format, self.chat_format.capabilities
        tools = [tool.wire() for tool in self.tools]
        messages = list(messages)
        if tools and not capabilities.tools:
            messages, tools = describe_tools(messages, self.tools, chat_format.call_format), []
        written: dict[str, str] = {}
        if not capabilities.calls and isinstance(chat_format.call_format, WritableFormat):
            messages, written = write_calls(messages, chat_format.call_format, self.split_tokens)
            messages = messages if capabilities.results else calls_as_user_text(messages)
        elif not (capabilities.calls and capabilities.results):
            messages = calls_as_user_text(messages)
        adapted = chat_format.call_format.adapt_messages(adapt_messages(messages, capabilities))
        safe: list[Message] = self.split_tokens(adapted)
        try:
            return insert_written(self._render(safe, tools, generate), written)
        except TemplateFailed:
            described = [_with_descriptions(tool) for tool in tools]
            if described == tools:
                raise
            return insert_written(self._render(safe, described, generate), written)

    def _render(self, messages: list[Message], tools: list[dict[str, Any]], generate: bool) -> str:
        chat_format, safe_tools = self.chat_format, self.split_tokens(tools)
        return chat_format.template.render(
            messages,
            tools=safe_tools if tools else [] if chat_format.capabilities.empty_tools else None,
            add_generation_prompt=generate,
            extra={**template_variables(chat_format.template.source, safe_tools), **self.variables},
        )


def _with_descriptions(tool: dict[str, Any]) -> dict[str, Any]:
    """Tools with a description of every argument and other fields without which some templates fail."""
    function = tool["function"]
    parameters = function["parameters"]
    described = {**parameters, **_described_parts(parameters)}
    return {**tool, "function": {**function, "parameters": described}}


def _described(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if schema.get("type") == "object" else {}
    return {"description": "", **more, **schema, **_described_parts(schema)}


def _described_parts(schema: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if isinstance(properties := schema.get("properties"), dict):
        parts["properties"] = {name: _described(value) for name, value in properties.items()}
    if isinstance(items := schema.get("items"), dict):
        parts["items"] = _described(items)
    return parts


def _reasoning_variables(chat: ChatInput, source: str) -> dict[str, Any]:
    """The reasoning options under the names that templates use. The request's own variables take precedence.
    """
    reasoning = chat.reasoning
    variables: dict[str, Any] = {"enable_thinking": reasoning.enabled is not False}
    if reasoning.enabled is not None:
        variables["thinking"] = reasoning.enabled
        if '"disabled"' in source:
            variables["thinking_mode"] = "enabled" if reasoning.enabled else "disabled"
    if reasoning.enabled is False or reasoning.budget is not None:
        variables["thinking_budget"] = reasoning.budget if reasoning.enabled is not False else 0
    if reasoning.effort is None and reasoning.enabled and "'no_think'" in source:  # the default of a template
        variables["reasoning_effort"] = "high"
    if reasoning.effort not in (None, "none"):
        variables |= dict.fromkeys(EFFORTS, reasoning.effort)
    return {**variables, **chat.extra}


def _render_continued(rendering: _Rendering, chat: ChatInput) -> tuple[str, bool]:
    """The prompt up to the end of the last message's content or reasoning, and whether that is reasoning."""
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
    end = text.replace(TOKEN_BREAK, "").rstrip()
    return chat_format.markers is not None and end.endswith(chat_format.markers.start.strip())
