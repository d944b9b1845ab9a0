"""Turns a neutral chat or completion request into a job: prompts, limits, and engine requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import msgspec

from engine.config import DRAFT_MODEL, MAX_DRAFT, NGRAM
from engine.errors import ConfigError
from engine.sampling import parameters as sampling
from engine.types import InferenceParameters
from engine.types import Request as EngineRequest
from server.chat.prompt import Prompt
from server.chat.request import ChatInput
from server.errors import bad_request, wrong
from server.generation.job import Job
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.ids import new_id
from server.input import infill
from server.input.prompt_scores import requested_top, score_prompts
from server.input.prompts import check_constraint, prepare_chat, prompt_tokens
from server.input.requests import CompletionInput

SEEDS = 2**64


async def process_chat(chat: ChatInput, options: GenerationOptions, context: RequestContext) -> Job:
    """The job that answers a conversation. Raises ApiError if the request is invalid."""
    _check_n_sequences(options, 1, context)
    prompt = await prepare_chat(chat, context)
    return _job([prompt], options, _sampling_parameters(options, context), context)


async def process_completion(
    completion: CompletionInput, options: GenerationOptions, context: RequestContext
) -> Job:
    """The job that continues prompts. Raises ApiError if the request is invalid."""
    _check_n_sequences(options, len(completion.prompts), context)
    if completion.suffix:
        infill.require(context.engine, "suffix")
        suffix = completion.suffix
        tokens = [await infill.prompt_with_suffix(p, suffix, context) for p in completion.prompts]
    else:
        tokens = [await prompt_tokens(prompt, context) for prompt in completion.prompts]
    params = _sampling_parameters(options, context)
    requested = completion.constraint
    constraint = None if requested is None else await check_constraint(requested, context)
    decode = context.engine.tokenizer.decode
    echoes = [
        "" if not options.echo else prompt if isinstance(prompt, str) else decode(prompt)
        for prompt in completion.prompts
    ]
    prompts = [
        Prompt(tokens=ids, constraint=constraint, echo=echo) for ids, echo in zip(tokens, echoes, strict=True)
    ]
    return _job(prompts, options, params, context)


def _check_n_sequences(options: GenerationOptions, n_prompts: int, context: RequestContext) -> None:
    most, total = context.state.settings.max_choices, (options.best_of or options.n) * n_prompts
    if total > most:
        param = "prompt" if n_prompts > most else options.n_field
        raise wrong(param, f"{total} completions (n x prompts) are requested, the limit is {most}")


def _sampling_parameters(options: GenerationOptions, context: RequestContext) -> InferenceParameters:
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
        context.warn(f"batch_size: {most} is in force, the server's limit")
    return min(options.batch_size or context.state.settings.batch_size, most)


def _drafts(options: GenerationOptions, context: RequestContext) -> tuple[int, str]:
    """The maximum number of tokens to draft per step, and the source of the drafts."""
    settings, info = context.state.settings, context.engine.info or {}
    spec_type = options.speculation or context.spec_type
    if spec_type == "none":
        if options.draft_max:
            context.warn("speculative.n_max has no effect: speculative.type is none")
        return 0, NGRAM
    reason = None
    if not info.get("drafts", True):
        reason = "states of recurrent layers cannot be rolled back"
    elif spec_type == DRAFT_MODEL and info.get("draft_model", settings.draft_model) is None:
        reason = "no draft model is loaded (--draft-model)"
    if reason is not None:
        if options.speculation is not None:
            context.warn(f"speculative.type has no effect: {reason}")
        return 0, NGRAM
    if options.draft_max is not None and options.draft_max > MAX_DRAFT:
        context.warn(f"speculative.n_max: {MAX_DRAFT} is in force, the limit")
    most = settings.spec_draft_n_max if options.draft_max is None else min(options.draft_max, MAX_DRAFT)
    return most, spec_type


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


def _job(
    prompts: Sequence[Prompt],
    options: GenerationOptions,
    params: InferenceParameters,
    context: RequestContext,
) -> Job:
    engine = context.engine
    id, n = new_id(options.id_prefix), options.best_of or options.n
    n_batch, deadline = _batch_size(options, context), _deadline_ms(options, context)
    draft_max, spec_type = _drafts(options, context)
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
