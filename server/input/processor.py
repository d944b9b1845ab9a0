"""From a checked body to a job: limits, template, tokens, parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import ConfigError
from engine.sampling import parameters as sampling
from engine.types import Constraint, InferenceParameters
from engine.types import Request as EngineRequest
from server.api.common.generation_fields import GenerationFields, Schema
from server.api.llama_server.completion.verbose import add_verbose
from server.api.openai.chat.parser import chat_input
from server.api.openai.chat.schema import ChatRequest
from server.api.openai.completions import echo
from server.api.openai.completions.schema import CompletionRequest
from server.dependencies import Engine, ModelFacts, State
from server.errors import ApiError, bad_request
from server.generation.job import Job, new_id
from server.generation.output_processor import Choice
from server.input import infill
from server.input.chat import ChatPlan, plan_chat
from server.input.constraints import asked_of, checked
from server.input.tokenize import MAX_WARNINGS, echoed, facts_of, prompt_tokens

if TYPE_CHECKING:
    from server.http.middleware.access_log import Record

SEEDS = 2**64

_SAME_NAME = [
    "min_tokens",
    "ignore_eos",
    "seed",
    "logit_bias",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "repeat_last_n",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "top_k",
    "tfs_z",
    "typical_p",
    "top_p",
    "min_p",
    "top_a",
    "temperature",
]

# Fields of the official APIs that change the answer and that we do not have: refused, except at the values
# listed, which ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": ([],),  # where there is no chat
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
}
_INSTEAD = {"functions": "; send tools", "function_call": "; send tool_choice"}
# Fields of the official APIs that change nothing here; no word about them at the values listed.
_IDLE: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "store": (False,),
    "service_tier": ("auto", "default"),
}


async def completion(body: CompletionRequest, state: State, record: Record) -> Job:
    """POST /v1/completions."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    n = body.n or 1
    made = best_of(body, n)
    total = made * len(body.prompt)
    if total > state.settings.max_choices:
        param = "best_of" if made > n else "n"
        if len(body.prompt) > state.settings.max_choices:
            param = "prompt"
        raise too_many_choices(param, total, state)
    if body.suffix:
        infill.require(engine, "suffix")
        prompts = [await infill.completion(p, body.suffix, engine, state) for p in body.prompt]
    else:
        prompts = [await prompt_tokens(prompt, engine, state) for prompt in body.prompt]
    texts = [echoed(p, engine) for p in body.prompt] if body.echo else [""] * len(prompts)
    shown = asked_logprobs(body)
    logprobs = 0 if made > n and shown is None else shown
    params = parameters(body, engine, state, body.max_tokens or None, logprobs, warnings)
    if body.max_tokens == 0:  # only computes the prompt, for later requests to find it in the cache
        params = msgspec.structs.replace(params, max_tokens=0)
    constraint = await checked(asked_of(body, warnings), engine, state, warnings)
    facts = await facts_of(engine, state)
    job = make_job(
        body, state, engine, facts, record, "cmpl-", prompts, texts, params, warnings, constraint, made=made
    )
    if body.echo and shown is not None:
        job.prelude = partial(echo.score, job.choices, shown, engine, state, record)
    return await add_verbose(job, body)


async def chat(body: ChatRequest, state: State, record: Record) -> Job:
    """POST /v1/chat/completions."""
    engine = state.engine(body.model)
    warnings = unknown_fields(body)
    if (body.n or 1) > state.settings.max_choices:
        raise too_many_choices("n", body.n or 1, state)
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs: needs logprobs: true", "top_logprobs", "invalid_value")
    limits = [n for n in (body.max_completion_tokens, body.max_tokens) if n is not None]
    if len(set(limits)) > 1:
        warnings.append("max_tokens has no effect: max_completion_tokens is given")
    asked = chat_input(body, warnings, asked_of(body, warnings))
    plan = await plan_chat(asked, engine, state, warnings)
    logprobs = asked_logprobs(body)
    params = parameters(body, engine, state, limits[0] if limits else None, logprobs, warnings)
    facts = await facts_of(engine, state)
    job = make_job(
        body, state, engine, facts, record, "chatcmpl-", [plan.prompt], [""], params, warnings, plan=plan
    )
    return await add_verbose(job, body)


def asked_logprobs(body: CompletionRequest | ChatRequest) -> int | None:
    """Of how many likely tokens too; None: of none at all. By OpenAI's fields or llama-server's."""
    if isinstance(body, ChatRequest):
        given = (body.top_logprobs or 0) if body.logprobs else None
    else:
        given = body.logprobs
    return (body.n_probs or None) if given is None else given


def best_of(body: CompletionRequest, n: int) -> int:
    """How many choices are made for each prompt."""
    made = body.best_of or n
    if made < n:
        raise bad_request(f"best_of: is {made}, less than n ({n})", "best_of", "invalid_value")
    if made > n and body.stream:
        message = "best_of: the best is known at the end only; with stream it must be n"
        raise bad_request(message, "best_of", "invalid_value")
    return made


def parameters(
    body: GenerationFields,
    engine: Engine,
    state: State,
    max_tokens: int | None,
    logprobs: int | None,
    warnings: list[str],
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> InferenceParameters:
    """Checked sampling parameters. Adds to `warnings` what has no effect.

    defaults: of the route, where neither the request nor the server's --default says anything.
    """
    given = {name: v for name in _SAME_NAME if (v := getattr(body, name)) is not None}
    if max_tokens is not None:
        given["max_tokens"] = max_tokens
    values = {**defaults, **state.defaults, **given}
    seed = given.get("seed", state.settings.seed)
    values["seed"] = None if seed is None else seed % SEEDS
    stops = tuple(body.stop_token_ids or ())
    asked = InferenceParameters(logprobs=logprobs, stop_token_ids=stops, **values)
    try:
        valid = sampling.validate(asked, engine.tokenizer.n_vocab, engine.n_ctx)
    except ConfigError as error:
        param = str(error).split(" ", 1)[0].rstrip(":")
        raise bad_request(str(error), param, "invalid_value") from error
    warnings += [text for text in sampling.warnings(valid) if text.partition(" ")[0] in given]
    if body.stop and "" in body.stop:
        warnings.append("stop has no effect where it is an empty string")
    if body.stream_options is not None:
        if not body.stream:
            warnings.append("stream_options has no effect: stream is not true")
        if body.stream_options.include_obfuscation:
            warnings.append("stream_options.include_obfuscation has no effect")
    return valid


def batch_size(body: GenerationFields, engine: Engine, state: State, warnings: list[str]) -> int:
    if body.batch_size is not None and body.n_batch is not None and body.batch_size != body.n_batch:
        raise bad_request("n_batch: differs from batch_size, which is the same", "n_batch", "invalid_value")
    asked = body.batch_size if body.batch_size is not None else body.n_batch
    if asked is not None and asked > engine.max_batch_size:
        warnings.append(f"batch_size: {engine.max_batch_size} is in force, the server's limit")
    return min(asked or state.settings.batch_size, engine.max_batch_size)


def make_job(
    body: GenerationFields,
    state: State,
    engine: Engine,
    facts: ModelFacts,
    record: Record,
    prefix: str,
    prompts: Sequence[list[int]],
    texts: Sequence[str],
    params: InferenceParameters,
    warnings: list[str],
    constraint: Constraint | None = None,
    made: int | None = None,
    plan: ChatPlan | None = None,
) -> Job:
    """`constraint`: of every choice, checked before (`server.input.constraints`).

    made: choices for each prompt, if more than are shown. plan: of a chat; the constraint is in it.
    """
    id = new_id(prefix)
    n_batch = batch_size(body, engine, state, warnings)
    limits = [state.settings.request_timeout_s and state.settings.request_timeout_s * 1000, body.timeout_ms]
    limit = min((ms for ms in limits if ms), default=None)
    deadline = None if limit is None else time.monotonic() * 1000 + limit
    tokenizer = engine.tokenizer
    final_ids = frozenset(params.stop_token_ids) | tokenizer.eog_ids
    stops = [stop for stop in body.stop or () if stop]
    if body.id_slot is not None and body.id_slot >= len(engine.slots):
        warnings.append(f"id_slot has no effect: there are {len(engine.slots)} slots, numbered from 0")
    show = bool(body.return_tokens) or params.logprobs is not None
    n = made or body.n or 1
    choices: list[Choice] = []
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        room = engine.n_ctx - len(prompt)
        if params.max_tokens is not None and params.max_tokens > room:
            warnings.append(f"max_tokens: only {room} tokens fit after the prompt")
        for j in range(n):
            seed = (params.seed + j) % SEEDS if params.seed is not None else None
            request = EngineRequest(
                id=f"{id}-{len(choices)}" if n * len(prompts) > 1 else id,
                prompt=prompt,
                params=msgspec.structs.replace(params, seed=seed) if j else params,
                n_batch=n_batch,
                cache_prompt=body.cache_prompt is not False,
                deadline_ms=deadline,
                slot=None if body.id_slot is None or body.id_slot < 0 else body.id_slot,
                constraint=constraint if plan is None else plan.constraint,
                thinking=None if plan is None else plan.thinking,
            )
            parser = None if plan is None else plan.parser()
            kept = () if plan is None else plan.kept
            choices.append(
                Choice(len(choices), i, request, tokenizer, stops, final_ids, show, text, parser, kept)
            )
    options = body.stream_options
    job = Job(
        state,
        engine,
        facts,
        record,
        id=id,
        choices=choices,
        warnings=warnings,
        stream=bool(body.stream),
        include_usage=bool(body.stream and options and options.include_usage),
        n_shown=None if n == (body.n or 1) else body.n or 1,
    )
    job.timings_per_token = bool(body.timings_per_token)
    for choice in choices:
        choice.tell_progress = bool(body.return_progress and body.stream)
    return job


def unknown_fields(body: Schema, refuse: bool = True) -> list[str]:
    """A warning for each field that we do not know; an error for one that asks for what we do not do."""
    warnings: list[str] = []
    for name, value in (body.model_extra or {}).items():
        if value is None or value in _IDLE.get(name, ()):
            continue
        if refuse and name in _REFUSED:
            if value in _REFUSED[name]:
                continue
            message = f"{name}: is not supported by this server{_INSTEAD.get(name, '')}"
            raise bad_request(message, name, "unsupported_value")
        if len(warnings) >= MAX_WARNINGS:
            warnings.append("further unknown fields have no effect")
            break
        warnings.append(f"{name[:64]} has no effect")
    return warnings


def too_many_choices(param: str, total: int, state: State) -> ApiError:
    message = (
        f"{param}: {total} completions (n x prompts) asked for, at most {state.settings.max_choices} are made"
    )
    return bad_request(message, param, "invalid_value")
