"""Turns a neutral chat request into a job: the prompt and its tokens, limits, and engine requests."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from engine.errors import ConfigError, ContextOverflowError
from engine.sampling import parameters as sampling
from engine.types import Constraint, InferenceParameters, Reasoning
from engine.types import Request as EngineRequest
from server.chat.chat_format import load_chat_formats
from server.chat.messages import InvalidMessage
from server.chat.prompt import ChatFormats, Prompt, render_prompt
from server.chat.reasoning import reasoning_block
from server.chat.request import ChatInput, RequestedConstraint
from server.chat.template.render import TemplateFailed
from server.chat.template.special_tokens import special_tokens_of
from server.chat.tool_calls.tool_call_format import UnsupportedSchema
from server.config.settings import Settings
from server.errors import ApiError, ContextExceeded, bad_request, wrong
from server.generation.job import Job
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.ids import new_id
from server.input.constraints import check_constraint, check_with_tools
from server.input.prompt_scores import requested_top, score_prompts
from server.state import ChatSupport
from server.worker.engine import Engine
from server.worker.model_use import model_use

SEEDS = 2**64
INLINE_CHARS = 2048  # texts up to here are tokenized in the event loop: a thread would take longer
_NUMBERED = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)


async def process_chat(chat: ChatInput, options: GenerationOptions, context: RequestContext) -> Job:
    """The job that answers a conversation. Raises ApiError if the request is invalid."""
    check_n_sequences(options, 1, context)
    prompt = await prepare_chat(chat, context)
    return new_job([prompt], options, sampling_parameters(options, context), context)


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


def _formats(support: ChatSupport, engine: Engine) -> ChatFormats:
    formats = support.formats
    if isinstance(formats, TemplateFailed):
        raise bad_request(f"{formats}; set another with --chat-template", "messages", "template_failed")
    if formats is None:
        message = f"model '{engine.name}' has no chat template; set one with --chat-template"
        raise bad_request(f"{message}, or use /v1/completions", "messages", "no_chat_template")
    return formats


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


async def _output_constraint(chat: ChatInput, prompt: Prompt, context: RequestContext) -> Constraint | None:
    """The constraint on the output of a conversation: calls of its tools, `chat.answer`, or either."""
    requested, tools = chat.answer, prompt.tools
    answer = None if requested is None else await check_constraint(requested, context)
    if tools is None:
        constraint = prompt.output_constraint(answer)
        if requested is None or constraint is None or constraint is answer:
            return answer
        return await check_constraint(RequestedConstraint(constraint, requested.param), context, report=False)
    if tools.required and requested is not None:
        context.warn(f"{requested.param} has no effect: a tool is called in any case")
    made: Constraint | UnsupportedSchema | None
    try:
        made = await context.in_thread(prompt.output_constraint, tools.answer)
    except UnsupportedSchema as error:
        made = error
    return None if made is None else await check_with_tools(chat, tools, made, context)


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


def check_generates(engine: Engine) -> None:
    """Refuse models that only compute embeddings or rank documents."""
    if (engine.info or {}).get("generates") is False:
        ranks = model_use(engine) == "ranking"
        does, path = ("ranks documents", "/v1/rerank") if ranks else ("makes embeddings", "/v1/embeddings")
        message = f"model: '{engine.name}' {does} and cannot generate text; use {path}"
        raise bad_request(message, "model", "cannot_generate")


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


def check_n_sequences(options: GenerationOptions, n_prompts: int, context: RequestContext) -> None:
    most, total = context.state.settings.max_choices, (options.best_of or options.n) * n_prompts
    if total > most:
        param = "prompt" if n_prompts > most else options.n_field
        raise wrong(param, f"{total} completions (n x prompts) are requested, the limit is {most}")


def sampling_parameters(options: GenerationOptions, context: RequestContext) -> InferenceParameters:
    """The parameters, checked against the model. The request's values override the defaults."""
    engine, requested = context.engine, options.sampling
    values = {**context.default_sampling, **requested}
    seed = requested.get("seed", context.state.settings.seed)
    values["seed"] = None if seed is None else seed % SEEDS
    if options.max_tokens:
        values["max_tokens"] = None if options.max_tokens < 0 else options.max_tokens
    logprobs = options.logprobs
    if logprobs is None and options.best_of > options.n:
        logprobs = 0  # the likeliest are looked for
    params = InferenceParameters(logprobs=logprobs, stop_token_ids=tuple(options.stop_token_ids), **values)
    try:
        n_ctx = None if context.state.settings.context_shift else engine.n_ctx
        params = sampling.validate(params, engine.tokenizer.n_vocab, n_ctx)
    except ConfigError as error:
        param = str(error).split(" ", 1)[0].rstrip(":")
        raise bad_request(str(error), param, "invalid_value") from error
    for text in sampling.warnings(params):
        if text.partition(" ")[0] in requested:
            context.warn(text)
    if options.max_tokens == 0:  # only the prompt, for later requests to find it in the prefix cache
        params = msgspec.structs.replace(params, max_tokens=0)
    if options.post_sampling_logprobs and params.logprobs:
        params = msgspec.structs.replace(params, post_sampling=True)
    return params


def _batch_size(options: GenerationOptions, context: RequestContext) -> int:
    most = context.engine.max_batch_size
    if options.batch_size is not None and options.batch_size > most:
        context.warn(f"batch_size: {most} is used, the server's limit")
    return min(options.batch_size or context.state.settings.batch_size, most)


def _deadline_ms(options: GenerationOptions, context: RequestContext) -> float | None:
    """The deadline by the monotonic clock."""
    timeout_s = context.state.settings.request_timeout_s
    limits = [timeout_s and timeout_s * 1000, options.timeout_ms]
    limit = min((ms for ms in limits if ms), default=None)
    return None if limit is None else time.monotonic() * 1000 + limit - (context.record.load_ms or 0.0)


def _n_keep(options: GenerationOptions, n_prompt: int, context: RequestContext) -> int:
    """n_keep as llama-server counts it, without the BOS token."""
    if not context.state.settings.context_shift:
        return 0
    n_keep = n_prompt if options.n_keep < 0 else options.n_keep
    tokenizer = context.engine.tokenizer
    return n_keep + int(tokenizer.add_bos and tokenizer.bos_id is not None)


def new_job(
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    params: InferenceParameters,
    context: RequestContext,
) -> Job:
    engine = context.engine
    id, n = new_id(options.id_prefix), options.best_of or options.n
    n_batch, deadline = _batch_size(options, context), _deadline_ms(options, context)
    draft_max, spec_type = context.drafts(options.draft_max, options.speculation)
    lora = context.lora if options.lora is None else context.check_lora(options.lora, "lora")
    salt, priority = context.cache_salt(options.cache_salt), context.priority(options.priority)
    if options.slot is not None and options.slot >= len(engine.slots):
        context.warn(f"id_slot has no effect: there are {len(engine.slots)} slots, numbered from 0")
    shifts = context.state.settings.context_shift
    if options.n_keep and not shifts:
        context.warn("n_keep has no effect: the server runs without --context-shift")
    if options.n_discard and not shifts:
        context.warn("n_discard has no effect: the server runs without --context-shift")
    requests: list[tuple[Prompt, list[EngineRequest]]] = []
    for i, prompt in enumerate(prompts):
        requests.append((prompt, []))
        room = engine.n_ctx - len(prompt.tokens)
        if not shifts and params.max_tokens is not None and params.max_tokens > room:
            context.warn(f"{options.limit_field}: only {room} tokens fit after the prompt")
        for j in range(n):
            seed = (params.seed + j) % SEEDS if params.seed is not None else None
            request = EngineRequest(
                id=f"{id}-{i * n + j}" if n * len(prompts) > 1 else id,
                prompt=prompt.tokens,
                params=msgspec.structs.replace(params, seed=seed) if j else params,
                n_batch=n_batch,
                cache_prompt=options.cache_prompt,
                n_keep=_n_keep(options, len(prompt.tokens), context),
                n_discard=options.n_discard if shifts else 0,
                draft_max=draft_max,
                spec_type=spec_type,
                deadline_ms=deadline,
                lora=lora,
                cache_salt=salt,
                slot=options.slot,
                constraint=prompt.constraint,
                thinking=prompt.thinking,
                client=context.owner or "",
                weight=context.client.profile.weight,
                priority=priority,
                boundaries=prompt.boundaries,
            )
            requests[i][1].append(request)
    with_scores = options.echo or options.prompt_logprobs is not None
    top = requested_top(prompts, options) if with_scores else None
    scores = None if top is None else partial(score_prompts, prompts, top, lora, salt, context)
    return Job(context, id, requests, options, scores)
