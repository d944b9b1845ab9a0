"""Turns a conversation, or the raw prompt of a completion, into token ids that fit into the context and a
constraint on the output that compiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from engine.errors import ContextOverflowError
from engine.exact_json import dumps
from engine.types import Constraint, Reasoning
from server.chat.chat_format import ChatFormats, load_chat_formats
from server.chat.messages import InvalidMessage
from server.chat.prompt import Prompt, render_prompt
from server.chat.reasoning import reasoning_block
from server.chat.request import ChatInput, RequestedConstraint
from server.chat.template.sandbox import TemplateFailed
from server.chat.template.special_tokens import special_tokens_of
from server.chat.tool_calls.tool_call_format import ToolOptions, UnsupportedSchema
from server.config.settings import Settings
from server.errors import ApiError, ContextExceeded, bad_request, unsupported, wrong
from server.generation.request_context import RequestContext
from server.input.requests import RawPrompt
from server.sandbox.constraint_checker import CheckerBusy, ConstraintChecker
from server.sandbox.constraint_child import CheckResult
from server.state import ChatSupport
from server.worker.engine import Engine
from server.worker.model_use import model_use

MAX_IGNORED = 8  # keywords of a schema that are reported as not enforced
INLINE_CHARS = 2048  # texts up to here are tokenized in the event loop: a thread would take longer
_NUMBERED = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)


async def chat_support(context: RequestContext) -> ChatSupport:
    """The model's chat formats, determined at its first request, since the tokenizer is needed."""
    known = context.state.derived[context.engine]
    if known.chat_support is None:
        known.chat_support = await context.in_thread(
            _find_support, context.engine.tokenizer, context.state.chat_template
        )
    return known.chat_support


def _find_support(tokenizer: Any, source: str | None) -> ChatSupport:
    return ChatSupport(load_chat_formats(tokenizer, source), special_tokens_of(tokenizer))


async def prepare_chat(chat: ChatInput, context: RequestContext) -> Prompt:
    """The prompt, and how the output is constrained and parsed. Raises ApiError (400) if the request is
    invalid.
    """
    try:
        return await _prepare(chat, context)
    except ApiError as error:
        if not chat.numbered_messages:
            _name_whole_field(error, chat)
        raise


async def chat_text(chat: ChatInput, context: RequestContext) -> str:
    """A conversation rendered with the chat template."""
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
    boundaries = await _boundaries(rendered, tokens, context)
    thinking = _thinking(chat, rendered, context.engine)
    if limited and thinking is None:
        context.warn("the reasoning budget has no effect: the model's chat template has no reasoning")
    constraint = await _output_constraint(chat, rendered, context)
    reasons = chat_format.call_format.grammar_has_reasoning
    if thinking is not None and thinking.budget is None and (constraint is None or reasons):
        thinking = None
    return replace(rendered, tokens=tokens, boundaries=boundaries, constraint=constraint, thinking=thinking)


async def _render(chat: ChatInput, context: RequestContext, shielded: bool) -> Prompt:
    """shielded: no text of a message is read as a special token."""
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
        values = {"chat_template_kwargs": chat.extra, "tools": [tool.parameters for tool in chat.tools]}
        param = next((name for name, value in values.items() if _is_deep(value)), chat.param)
        raise wrong(param, "is nested too deeply") from None
    for text in rendered.warnings:
        numbered = None if chat.numbered_messages else _NUMBERED.fullmatch(text)
        if numbered is not None:
            role = chat.messages[int(numbered[1])]["role"]
            text = f"{chat.param}: a message of the role {role}{numbered[2]}"
        context.warn(text)
    return rendered


def _is_deep(value: Any) -> bool:
    try:
        deepcopy(value)
    except RecursionError:
        return True
    return False


def _name_whole_field(error: ApiError, chat: ChatInput) -> None:
    """Make an error about one message name the whole field, if the client sent no such message."""
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
    """The request with the server's options for what it does not set."""
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


async def _boundaries(rendered: Prompt, tokens: list[int], context: RequestContext) -> list[int]:
    """Lengths in tokens of the prompt up to the places of its last turn, if the model makes checkpoints."""
    info, text, tokenizer = context.engine.info or {}, rendered.text, context.engine.tokenizer
    if not (rendered.turn and (info.get("state_slots") or info.get("window_rows"))):
        return []

    def count() -> list[int]:
        lengths, n, n_bytes = [], len(tokens), 0
        for place in sorted(rendered.turn, reverse=True):
            after = len(text[place:].encode("utf-8", "surrogatepass"))
            while n and n_bytes < after:
                n -= 1
                n_bytes += len(tokenizer.token_bytes(tokens[n], special=True))
            lengths.append(n)
        return lengths

    small = len(text) - min(rendered.turn) <= INLINE_CHARS
    return count() if small else await context.in_thread(count)


def _thinking(chat: ChatInput, rendered: Prompt, engine: Engine) -> Reasoning | None:
    """How the engine limits and recognizes reasoning; None: the output cannot have any."""
    if rendered.reasoning_markers is None:
        return None
    return reasoning_block(rendered.reasoning_markers, chat.reasoning, rendered.opened, engine.tokenizer)


async def _output_constraint(chat: ChatInput, prompt: Prompt, context: RequestContext) -> Constraint | None:
    """The constraint on the output of a conversation: calls of its tools, `chat.answer`, or either."""
    answer = None if chat.answer is None else await check_constraint(chat.answer, context)
    if prompt.tools is not None:
        return await _constraint_with_tools(chat, prompt, prompt.tools, context)
    if chat.answer is None:
        return None
    constraint = prompt.output_constraint(answer)
    if constraint is None or constraint is answer:
        return answer
    return await check_constraint(RequestedConstraint(constraint, chat.answer.param), context, report=False)


async def _constraint_with_tools(
    chat: ChatInput, prompt: Prompt, tools: ToolOptions, context: RequestContext
) -> Constraint | None:
    if tools.required and chat.answer is not None:
        context.warn(f"{chat.answer.param} has no effect: a tool is called in any case")
    try:
        constraint = await context.in_thread(prompt.output_constraint, tools.answer)
        if constraint is None:
            return None
        result = await _compiled(RequestedConstraint(constraint, "tools"), context)
        if not result.error:
            for schema in _schemas(chat, tools) if result.not_enforced else ():
                _warn_of_ignored(await _compiled(schema, context), schema.param, context)
            return constraint
        failure = wrong("tools", result.error)
    except UnsupportedSchema as error:
        failure = unsupported("tools", str(error))
    for schema in _schemas(chat, tools):  # one of them may be at fault
        result = await _compiled(schema, context)
        if result.error:
            failure = wrong(schema.param, result.error)
            break
    if tools.required or tools.answer is not None:
        raise failure
    context.warn(f"tools: the schemas of arguments are not enforced ({failure.message})")
    return None


def _schemas(chat: ChatInput, tools: ToolOptions) -> Iterator[RequestedConstraint]:
    """The argument schemas of the tools."""
    for tool in tools.tools:
        constraint = Constraint("json_schema", dumps(tool.schema))
        yield RequestedConstraint(constraint, f"{tool.param}.{chat.schema_field}")


async def check_constraint(
    requested: RequestedConstraint, context: RequestContext, *, report: bool = True
) -> Constraint:
    """The constraint, known to compile for the model. Any other is a 400 that names the field.

    report: warn about what is not enforced.
    """
    result = await _compiled(requested, context)
    constraint, param = requested
    if result.error:
        raise wrong(param, result.error)
    if report:
        _warn_of_ignored(result, param, context)
    return constraint


async def _compiled(requested: RequestedConstraint, context: RequestContext) -> CheckResult:
    """Whether a constraint compiles for the model, tried in a separate process so that a hostile one does no
    harm elsewhere. Raises ApiError (503) if too many others are waiting.
    """
    known = context.state.derived[context.engine]
    if (checker := known.constraint_checker) is None:
        checker = known.constraint_checker = ConstraintChecker(context.engine.tokenizer)
    constraint, param = requested
    try:
        return await checker.check(constraint)
    except CheckerBusy:
        message = "too many output constraints are being compiled; try again later"
        raise ApiError(503, message, param=param, code="overloaded", retry_after=2) from None


def _warn_of_ignored(result: CheckResult, param: str, context: RequestContext) -> None:
    for keyword in result.not_enforced[:MAX_IGNORED]:
        context.warn(f"{param}: not enforced: {keyword}")


def check_generates(engine: Engine) -> None:
    """Refuse models that only compute embeddings or rank documents."""
    if (engine.info or {}).get("generates") is False:
        ranks = model_use(engine) == "ranking"
        does, path = ("ranks documents", "/v1/rerank") if ranks else ("makes embeddings", "/v1/embeddings")
        message = f"model: '{engine.name}' {does} and cannot generate text; use {path}"
        raise bad_request(message, "model", "cannot_generate")


async def prompt_tokens(prompt: RawPrompt, context: RequestContext) -> list[int]:
    """The prompt of a completion: at least one token, and room for one more. Raises ApiError (400)."""
    engine = context.engine
    check_generates(engine)
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        tokens = await tokenize([prompt], context, "prompt")
    else:
        check_length(len(prompt), engine, "prompt")
        tokens = await _mixed(prompt, context) if any(isinstance(part, str) for part in prompt) else [*prompt]  # type: ignore[list-item]
        if not all(type(id) is int and 0 <= id < tokenizer.n_vocab for id in tokens):
            raise wrong("prompt", f"token ids must be integers from 0 to {tokenizer.n_vocab - 1}")
    if not tokens:  # something must be computed: what a text begins with
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise wrong("prompt", "is empty")
        tokens = [start]
    check_length(len(tokens), engine, "prompt")
    return tokens


async def _mixed(parts: Sequence[int | str], context: RequestContext) -> list[int]:
    """Mixed texts and token ids. Only a text at the very beginning gets the BOS token."""
    tokenizer = context.engine.tokenizer
    least = sum(tokenizer.min_tokens(part) if isinstance(part, str) else 1 for part in parts)
    check_length(least, context.engine, "prompt")

    def encode() -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += tokenizer.encode(part, add_special=not i, parse_special=True)
        return ids

    return await context.in_thread(encode)


async def tokenize(
    parts: Sequence[str], context: RequestContext, param: str, add_special: bool = True
) -> list[int]:
    """Token ids of consecutive texts. What cannot fit is refused before it is tokenized."""
    tokenizer, n_ctx = context.engine.tokenizer, context.engine.n_ctx
    least = sum(map(tokenizer.min_tokens, parts))

    def encode() -> list[int]:
        tokens: list[int] = []
        for part in parts:
            tokens += tokenizer.encode(part, add_special=add_special, parse_special=True)
            if len(tokens) > 2 * n_ctx:  # the error need not give the exact number
                break
        return tokens

    tokens: list[int] = []
    if least < n_ctx:
        small = len(parts) < 16 and sum(map(len, parts)) <= INLINE_CHARS
        tokens = encode() if small else await context.in_thread(encode)
    if max(least, len(tokens)) > 2 * n_ctx or least >= n_ctx:
        n = max(least, len(tokens))
        raise _too_long(n, context.engine, param, at_least=True)
    return tokens


def check_length(n: int, engine: Engine, param: str) -> None:
    """Refuse prompts that leave no room for a generated token."""
    if n >= engine.n_ctx:
        raise _too_long(n, engine, param)


def _too_long(n: int, engine: Engine, param: str, *, at_least: bool = False) -> ContextExceeded:
    trained = (engine.info or {}).get("n_ctx_train")
    message = str(ContextOverflowError(n, engine.n_ctx, at_least=at_least, n_ctx_train=trained))
    return ContextExceeded(message, param, n, engine.n_ctx)
