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
from server.chat.accepted_forms import AcceptedForms
from server.chat.message_order import OrderedMessages, order_messages
from server.chat.messages import (
    TOKEN_BREAK,
    InvalidMessage,
    Message,
    adapt_messages,
    find_places,
    is_regular,
    pair_calls,
    text_of,
)
from server.chat.output import OutputDelta
from server.chat.reasoning import ReasoningMarkers, ReasoningParser
from server.chat.refusals import accepted_effort, find_refused, with_descriptions
from server.chat.request import ChatInput, Tool, check_tools
from server.chat.streaming_parser import StreamingParser
from server.chat.template.capabilities import TemplateCapabilities
from server.chat.template.render import ChatTemplate, TemplateFailed, TemplateLimitExceeded
from server.chat.tool_calls.grammar import KINDS, GrammarTerminals, answer_rule
from server.chat.tool_calls.tool_call_format import (
    ToolCallFormat,
    ToolOptions,
    WholeAnswerFormat,
    WritableFormat,
)
from server.chat.tool_text import calls_as_user_text, describe_tools, insert_written, write_calls
from server.errors import unsupported

_ANSWER_START = "\ufdd1"  # where the answer begins: a noncharacter, like TOKEN_BREAK
_LETTERS = string.ascii_letters + string.digits
EFFORTS = ("reasoning_effort", "reasoning_strength", "thinking_effort")  # names of a variable of templates


@dataclass(frozen=True)
class ChatFormat:
    """One chat template and its consequences for prompts and outputs."""

    template: ChatTemplate
    capabilities: TemplateCapabilities
    call_format: ToolCallFormat
    markers: ReasoningMarkers | None  # of reasoning; None: the model does not reason
    terminals: GrammarTerminals
    accepted_forms: AcceptedForms = field(default_factory=AcceptedForms, compare=False)


@dataclass(frozen=True)
class ChatFormats:
    """with_tools: the format for requests with tools: that of the model's tool template, or else `plain`."""

    plain: ChatFormat
    with_tools: ChatFormat


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

    def new_parser(self) -> AnswerParser | None:
        """A parser of one answer to the prompt; None if the answer is plain text."""
        if self.chat_format is None:
            return None
        tools, call_format, raw = self.tools, self.chat_format.call_format, self.raw_reasoning
        new_id = _short_call_id if call_format.short_ids else _call_id
        if isinstance(call_format, WholeAnswerFormat):
            return AnswerParser(None, call_format.new_answer_parser(tools, new_id, self.text, raw))
        calls = None if tools is None else call_format.new_parser(tools, new_id)
        markers = self.reasoning_markers
        reasoning = None if markers is None else ReasoningParser(markers, self.opened, raw)
        return None if reasoning is None and calls is None else AnswerParser(reasoning, calls, raw)

    def output_constraint(self, answer: Constraint | None) -> Constraint | None:
        """The constraint on the output: tool calls, or `answer` where the format has its content.

        answer: known to compile. Blocks, so do not call it in the event loop. Raises UnsupportedSchema.
        """
        if self.chat_format is None:
            return answer
        call_format, terminals = self.chat_format.call_format, self.chat_format.terminals
        if self.tools is not None:
            text = call_format.grammar(self.tools, terminals)
            return None if text is None else Constraint("lark", text)
        if answer is None or answer.kind not in KINDS or not isinstance(call_format, WholeAnswerFormat):
            return answer
        return Constraint("lark", call_format.answer_grammar(answer_rule(answer), terminals))

    def preserved_tokens(self) -> frozenset[int]:
        """Special tokens whose text the parser needs."""
        if self.chat_format is None:
            return frozenset()
        texts = list(self.chat_format.call_format.markers if self.tools is not None else ())
        if (markers := self.reasoning_markers) is not None:
            texts += [markers.start, markers.end]
        tokens = self.chat_format.terminals.tokens
        return frozenset(id for text, id in tokens.items() if any(text in whole for whole in texts))


class AnswerParser:
    """Parses one answer as it is generated, in any pieces. Text that may begin a marker is held back.

    first: splits off reasoning; None: there is none, or `rest` does it. rest: parses what follows; None: it
    is content. raw: reasoning stays in the content.
    """

    def __init__(
        self, first: ReasoningParser | None, rest: StreamingParser | None, raw: bool = False
    ) -> None:
        self._first, self._rest, self._raw = first, rest, raw

    @property
    def reasoning(self) -> bool:
        """Whether the next text is reasoning, so that its tokens count as reasoning tokens."""
        parser = self._first or self._rest
        return parser is not None and parser.reasoning

    @property
    def has_calls(self) -> bool:
        """Whether the answer calls a tool."""
        return self._rest is not None and self._rest.n_calls > 0

    def push(self, text: str, last: bool = False) -> OutputDelta:
        """last: the answer ends with this text, so nothing is held back any more."""
        if self._first is None:
            return OutputDelta(text) if self._rest is None else self._rest.push(text, last)
        split = self._first.push(text, last)
        rest = OutputDelta(split.content)
        if self._rest is not None:
            rest = self._rest.push(split.content, last) if split.content or last else OutputDelta()
        if self._raw:
            return OutputDelta(split.reasoning + rest.content, "", rest.tools)
        return OutputDelta(rest.content, split.reasoning, rest.tools)


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
    messages = pair_calls(chat.messages)
    ordered = OrderedMessages(messages, range(len(messages)), [])
    if not is_regular(messages, chat.continues):
        ordered = order_messages(messages, partial(_accepts, chat_format), chat.continues)
    try:
        text, opened = _render(rendering, chat, ordered.messages)
    except InvalidMessage:
        adapt_messages(chat.messages, chat_format.capabilities)  # names the message by the client's number
        raise
    except TemplateLimitExceeded:
        raise
    except TemplateFailed as failure:
        effort = accepted_effort(rendering.try_effort, chat.reasoning.effort)
        if effort is None:
            raise find_refused(rendering.text, ordered) or failure from None
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
        tools=_tool_options(chat, chat_format.capabilities),
        raw_reasoning=chat.reasoning.format == "none",
    )


def _tool_options(chat: ChatInput, capabilities: TemplateCapabilities) -> ToolOptions | None:
    """The tools that may be called; None if there are none. Raises ApiError (400)."""
    choice = chat.tool_choice
    tools = tuple(tool for tool in chat.tools if choice.names is None or tool.name in choice.names)
    if choice.mode == "none" or not tools:
        return None
    parallel = chat.parallel_tool_calls
    if parallel is None:
        parallel = capabilities.parallel_calls or not capabilities.calls
    if choice.mode == "required" or chat.answer is None:
        return ToolOptions(tools, choice.mode == "required", parallel)
    answer, param = chat.answer
    if answer.kind not in KINDS:
        raise unsupported(param, "cannot be combined with tools that may be called or not")
    return ToolOptions(tools, False, parallel, answer)


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
        if any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
            if not capabilities.calls and isinstance(chat_format.call_format, WritableFormat):
                messages, written = write_calls(messages, chat_format.call_format, self.split_tokens)
                messages = messages if capabilities.results else calls_as_user_text(messages)
            elif not (capabilities.calls and capabilities.results):
                messages = calls_as_user_text(messages)
        safe: list[Message] = self.split_tokens(adapt_messages(messages, capabilities))
        try:
            text = self._render(safe, tools, generate)
        except TemplateFailed:
            described = [with_descriptions(tool) for tool in tools]
            if described == tools:
                raise
            text = self._render(safe, described, generate)
        return insert_written(text, written) if written else text

    def try_effort(self, effort: str) -> None:
        """Render a short conversation with another effort, which stays set. Raises TemplateFailed."""
        self.variables |= dict.fromkeys(EFFORTS, effort)
        self.text([{"role": "user", "content": "Hello"}], True)

    def _render(self, messages: list[Message], tools: list[dict[str, Any]], generate: bool) -> str:
        chat_format, safe_tools = self.chat_format, self.split_tokens(tools)
        return chat_format.template.render(
            messages,
            tools=safe_tools if tools else [] if chat_format.capabilities.empty_tools else None,
            add_generation_prompt=generate,
            extra=self.variables,
        )


def _reasoning_variables(chat: ChatInput, source: str) -> dict[str, Any]:
    """The reasoning options under the names that templates use.

    The request's own variables take precedence.
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
