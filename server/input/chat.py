"""From a conversation of any API to a prepared prompt: chat template, tools, reasoning, output constraint."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from engine.exact_json import dumps
from engine.types import Constraint, Reasoning
from server.chat.chat_format import ChatFormat, ChatFormats, load_chat_formats
from server.chat.messages import InvalidMessage
from server.chat.prompt import Prompt, render_prompt
from server.chat.reasoning import reasoning_block
from server.chat.request import ChatInput, RequestedConstraint
from server.chat.template.sandbox import TemplateFailed
from server.chat.template.special_tokens import special_tokens_of
from server.chat.tool_calls.grammar import KINDS, answer_rule
from server.chat.tool_calls.tool import ToolChoice, check_tools
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from server.config.settings import Settings
from server.errors import ApiError, bad_request, unsupported, wrong
from server.generation.request_context import RequestContext
from server.input.constraints import check_constraint, tried, warn_of_ignored
from server.input.tokenize import check_generates, check_length, tokenize
from server.state import ChatSupport
from server.worker.engine import Engine

_NUMBERED = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)


async def chat_support(context: RequestContext) -> ChatSupport:
    """The model's chat formats, found at its first request, since the tokenizer is needed."""
    engine, known = context.engine, context.state.chat_support
    support = known.get(engine.name)
    if support is None:
        support = await context.in_thread(_find_support, engine.tokenizer, context.state.chat_template)
        known[engine.name] = support
    return support


def _find_support(tokenizer: Any, source: str | None) -> ChatSupport:
    return ChatSupport(load_chat_formats(tokenizer, source), special_tokens_of(tokenizer))


async def prepare_chat(chat: ChatInput, context: RequestContext) -> Prompt:
    """The prompt, and how the output is constrained and parsed. Raises ApiError (400) with what is wrong."""
    try:
        return await _prepare(chat, context)
    except ApiError as error:
        if not chat.numbered_messages:
            _name_whole_field(error, chat)
        raise


async def chat_text(chat: ChatInput, context: RequestContext) -> str:
    """The prompt that the chat template makes of a conversation."""
    rendered = await _render(_with_defaults(chat, context.state.settings), context, shielded=False)
    return rendered.text


async def _prepare(chat: ChatInput, context: RequestContext) -> Prompt:
    check_generates(context.engine)
    limited = chat.reasoning.budget not in (None, -1)
    chat = _with_defaults(chat, context.state.settings)
    rendered = await _render(chat, context, shielded=True)
    chat_format = rendered.chat_format
    assert chat_format is not None
    tokens = await _tokens(rendered, chat, context)
    tools = _tool_options(chat, chat_format, context)
    thinking = _thinking(chat, rendered, context.engine)
    if limited and thinking is None:
        context.warn("the reasoning budget has no effect: the model's chat template has no reasoning")
    constraint = await _constraint(chat, tools, chat_format, context)
    reasons = chat_format.call_format.grammar_has_reasoning
    if thinking is not None and thinking.budget is None and (constraint is None or reasons):
        thinking = None
    return replace(
        rendered,
        tokens=tokens,
        tools=tools,
        raw_reasoning=chat.reasoning.format == "none",
        constraint=constraint,
        thinking=thinking,
    )


async def _render(chat: ChatInput, context: RequestContext, shielded: bool) -> Prompt:
    """shielded: no text of a message is read as a special token."""
    if chat.tools or chat.tool_choice != ToolChoice():
        check_tools(chat.tools, chat.tool_choice)
    support = await chat_support(context)
    formats = _formats(support, context.engine)
    special_tokens = support.special_tokens if shielded else None
    try:
        rendered = await context.in_thread(render_prompt, chat, formats, special_tokens)
    except InvalidMessage as error:
        where = chat.param + error.path
        raise bad_request(f"{where}: {error}", where, error.code) from None
    except TemplateFailed as error:
        param = "chat_template_kwargs" if str(error).startswith("chat_template_kwargs") else chat.param
        raise bad_request(str(error), param, "template_failed") from error
    except RecursionError:
        param = "chat_template_kwargs"
        raise wrong(param, "is nested too deeply") from None
    for text in rendered.warnings:
        numbered = None if chat.numbered_messages else _NUMBERED.fullmatch(text)
        if numbered is not None:
            role = chat.messages[int(numbered[1])]["role"]
            text = f"{chat.param}: a message of the role {role}{numbered[2]}"
        context.warn(text)
    return rendered


def _name_whole_field(error: ApiError, chat: ChatInput) -> None:
    """An error about one message names the whole field, where the client sent no such message."""
    param = error.param
    if param is not None and param.startswith(("messages", f"{chat.param}[")):
        error.param = chat.param
        error.message = f"{chat.param}: {error.message.removeprefix(f'{param}: ')}"


def _formats(support: ChatSupport, engine: Engine) -> ChatFormats:
    formats = support.formats
    if isinstance(formats, TemplateFailed):
        raise bad_request(f"{formats}; set another with --chat-template", "messages", "template_failed")
    if formats is None:
        message = f"model '{engine.name}' has no chat template; set one with --chat-template"
        raise bad_request(f"{message}, or use /v1/completions", "messages", "no_chat_template")
    return formats


def _with_defaults(chat: ChatInput, settings: Settings) -> ChatInput:
    """With the server's options where the request sets nothing."""
    reasoning, extra = chat.reasoning, {**settings.chat_template_kwargs, **chat.extra}
    switch = extra.get("enable_thinking")
    if switch is not None and not isinstance(switch, bool):
        param = "chat_template_kwargs"
        raise wrong(param, "enable_thinking must be true or false")
    enabled = reasoning.enabled
    if enabled is None:
        enabled = False if reasoning.effort == "none" else switch
    if enabled is None and reasoning.effort is None and settings.reasoning != "auto":
        enabled = settings.reasoning == "on"
    format = reasoning.format or settings.reasoning_format
    budget = settings.reasoning_budget if reasoning.budget is None else reasoning.budget
    reasoning = replace(reasoning, enabled=enabled, format=format, budget=None if budget < 0 else budget)
    return replace(chat, reasoning=reasoning, extra=extra)


async def _tokens(rendered: Prompt, chat: ChatInput, context: RequestContext) -> list[int]:
    tokenizer = context.engine.tokenizer
    tokens = await tokenize(rendered.pieces, context, chat.param, add_special=False)
    if tokenizer.add_bos and tokens[:1] != [tokenizer.bos_id]:  # most templates write it
        tokens.insert(0, tokenizer.bos_id)
    if chat.before:
        tokens = [*chat.before, *tokens[int(tokens[:1] == [tokenizer.bos_id]) :]]
    check_length(len(tokens), context.engine, chat.param)
    return tokens


def _tool_options(chat: ChatInput, chat_format: ChatFormat, context: RequestContext) -> ToolOptions | None:
    """The tools that may be called."""
    choice = chat.tool_choice
    tools = tuple(tool for tool in chat.tools if choice.names is None or tool.name in choice.names)
    if choice.mode == "none" or not tools:
        return None
    parallel = chat.parallel_tool_calls
    if parallel is None:
        parallel = chat_format.capabilities.parallel_calls or not chat_format.capabilities.calls
    if chat.answer is None:
        return ToolOptions(tools, choice.mode == "required", parallel)
    constraint, param = chat.answer
    if choice.mode == "required":
        context.warn(f"{param} has no effect: a tool is called in any case")
        return ToolOptions(tools, True, parallel)
    if constraint.kind not in KINDS:
        raise unsupported(param, "cannot be combined with tools that may be called or not")
    return ToolOptions(tools, False, parallel, constraint)


def _thinking(chat: ChatInput, rendered: Prompt, engine: Engine) -> Reasoning | None:
    """How the engine limits and recognizes reasoning; None: there can be none."""
    if rendered.reasoning_markers is None:
        return None
    return reasoning_block(rendered.reasoning_markers, chat.reasoning, rendered.opened, engine.tokenizer)


async def _constraint(
    chat: ChatInput, options: ToolOptions | None, chat_format: ChatFormat, context: RequestContext
) -> Constraint | None:
    alone = None if chat.answer is None else await check_constraint(chat.answer, context)
    if options is None:
        framed = None if chat.answer is None else _framed(chat.answer, chat_format)
        return alone if framed is None else await check_constraint(framed, context, report=False)
    try:
        text = chat_format.call_format.grammar(options, chat_format.terminals)
        if text is None:
            return None
        constraint = Constraint("lark", text)
        result = await tried(RequestedConstraint(constraint, "tools"), context)
        if not result.error:
            for schema in _schemas(chat, options) if result.not_enforced else ():
                warn_of_ignored(await tried(schema, context), schema.param, context)
            return constraint
        failure = wrong("tools", result.error)
    except UnsupportedSchema as error:
        failure = unsupported("tools", str(error))
    failure = await _fault_of_one(chat, options, context) or failure
    if options.required or options.answer is not None:
        raise failure
    context.warn(f"tools: the schemas of arguments are not enforced ({failure.message})")
    return None


async def _fault_of_one(chat: ChatInput, options: ToolOptions, context: RequestContext) -> ApiError | None:
    """Which of the tools that may be called is at fault, if it is the schema of one."""
    for schema in _schemas(chat, options):
        result = await tried(schema, context)
        if result.error:
            return wrong(schema.param, result.error)
    return None


def _schemas(chat: ChatInput, options: ToolOptions) -> list[RequestedConstraint]:
    """Of the arguments of the tools that may be called."""
    return [
        RequestedConstraint(Constraint("json_schema", dumps(tool.schema)), f"tools[{i}].{chat.schema_field}")
        for i, tool in enumerate(chat.tools)
        if tool.name in options.names
    ]


def _framed(answer: RequestedConstraint, chat_format: ChatFormat) -> RequestedConstraint | None:
    """The constraint on the content within the format's frame; None: the format has no frame."""
    if answer.constraint.kind not in KINDS:
        return None
    text = chat_format.call_format.answer_grammar(answer_rule(answer.constraint), chat_format.terminals)
    return None if text is None else RequestedConstraint(Constraint("lark", text), answer.param)
