"""From a request of llama-server's API to a job."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from server.api.common.json_reader import generation_fields, warn
from server.api.llama_server.completion.samplers import switched_off
from server.api.llama_server.completion.settings import DEFAULTS
from server.errors import bad_request
from server.input.constraints import asked_of, checked
from server.input.processor import make_job, parameters, too_many_choices, unknown_fields
from server.input.tokenize import check_length, facts_of, prompt_tokens

if TYPE_CHECKING:
    from server.api.llama_server.completion.schema import NativeFields, NativeRequest, Part
    from server.dependencies import Engine, State
    from server.generation.job import Job
    from server.http.middleware.access_log import Record

# Fields of steps that we do not have: at these values there is nothing to say.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "min_keep": (0, 1),
    "dynatemp_range": (0,),
    "dynatemp_exponent": (1,),
    "xtc_probability": (0,),
    "xtc_threshold": (0.1,),
    "dry_multiplier": (0,),
    "dry_base": (1.75,),
    "dry_allowed_length": (2,),
    "dry_penalty_last_n": (-1, 0, 64),
    "dry_sequence_breakers": (["\n", ":", '"', "*"], ["\n"], []),
    "adaptive_decay": (0.9,),
    "backend_sampling": (False,),
    "n_keep": (0,),
    "n_discard": (0,),
    "n_cache_reuse": (0,),
    "n_indent": (0,),
}


async def completion_job(body: NativeRequest, state: State, record: Record) -> Job:
    """POST /completion."""
    engine = state.engine(body.model)
    check_choices(body, len(body.prompt), state)
    prompts = [await _tokens(parts, engine, state) for parts in body.prompt]
    return await native_job(body, prompts, engine, state, record)


def check_choices(body: NativeFields, n_prompts: int, state: State) -> None:
    """No more than the server makes for one request."""
    n = body.n or body.n_cmpl or 1
    if n * n_prompts > state.settings.max_choices:
        param = "n" if body.n else "n_cmpl"
        if n_prompts > state.settings.max_choices:
            param = "prompt"
        raise too_many_choices(param, n * n_prompts, state)


async def native_job(
    body: NativeFields, prompts: Sequence[list[int]], engine: Engine, state: State, record: Record
) -> Job:
    """The job of some prompts, with llama-server's defaults."""
    warnings = unknown_fields(body)
    _warn_of_steps(body, warnings)
    off = switched_off(body.samplers, warnings)
    for name in off:
        if getattr(body, name) is not None:
            warn(warnings, f"{name} has no effect: samplers leaves its step out")
    bias = await state.in_thread(_bias, body.logit_bias or (), engine)
    n_probs = body.n_probs if body.n_probs is not None else body.logprobs
    generation = generation_fields(
        body,
        n=body.n or body.n_cmpl or 1,
        seed=None if body.seed == -1 else body.seed,
        logit_bias=bias,
        return_tokens=bool(body.return_tokens or body.stream),
        **off,
    )
    limit = limit_of(body, warnings)
    told: list[str] = []
    most = limit if limit is not None and limit > 0 else None
    defaults = {name: value for name, value in DEFAULTS.items() if name not in off}
    params = parameters(generation, engine, state, most, n_probs or None, told, defaults)
    if body.post_sampling_probs and n_probs:
        params = msgspec.structs.replace(params, post_sampling=True)
    if limit == 0:  # only the prompt, for later requests to find it in the cache
        params = msgspec.structs.replace(params, max_tokens=0)
    constraint = await checked(asked_of(body, warnings), engine, state, warnings)
    facts = await facts_of(engine, state)
    texts = [""] * len(prompts)
    job = make_job(
        generation, state, engine, facts, record, "cmpl-", prompts, texts, params, told, constraint
    )
    job.warnings = warnings + [text.replace("max_tokens", "n_predict", 1) for text in told]
    for choice in job.choices:
        if body.t_max_predict_ms is not None and body.t_max_predict_ms > 0:
            choice.stop_after_ms = body.t_max_predict_ms
    return job


def limit_of(body: NativeFields, warnings: list[str]) -> int | None:
    """None: none."""
    given = {
        name: value
        for name in ("n_predict", "max_completion_tokens", "max_tokens")
        if (value := getattr(body, name)) is not None
    }
    if not given:
        return None
    first, *others = given
    for name in others:
        if given[name] != given[first]:
            warn(warnings, f"{name} has no effect: {first} is given")
    limit: int = given[first]
    return None if limit < 0 else limit


def _warn_of_steps(body: NativeFields, warnings: list[str]) -> None:
    for name, values in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in values:
            warn(warnings, f"{name} has no effect: there is no such step")
    for name in ("top_n_sigma", "adaptive_target"):
        if (getattr(body, name) or -1) > 0:
            warn(warnings, f"{name} has no effect: there is no such step")
    if body.n is not None and body.n_cmpl is not None and body.n != body.n_cmpl:
        warn(warnings, "n_cmpl has no effect: n is given")
    if body.stream_options is not None:
        warn(warnings, "stream_options has no effect: the last event has all counts")
    if body.logprobs is not None and body.n_probs is not None and body.logprobs != body.n_probs:
        warn(warnings, "logprobs has no effect: n_probs is given")
    if body.post_sampling_probs and not (body.n_probs or body.logprobs):
        warn(warnings, "post_sampling_probs has no effect: n_probs is not given")
    if body.return_progress and not body.stream:
        warn(warnings, "return_progress has no effect: stream is not true")


def _bias(entries: Iterable[tuple[int | str, float]], engine: Engine) -> dict[int, float]:
    """By token; a text's bias is that of each of its tokens. Several for one token add up."""
    found: dict[int, float] = {}
    for token, bias in entries:
        ids = [token] if isinstance(token, int) else engine.tokenizer.encode(token, add_special=False)
        for id in ids:
            total = found.get(id, 0.0) + bias
            found[id] = total if total == -math.inf else max(-1e6, min(1e6, total))
    return found


async def _tokens(parts: Sequence[Part], engine: Engine, state: State) -> list[int]:
    """A prompt of texts and token ids. What a text begins with is added if it begins with a text."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return await prompt_tokens(parts[0], engine, state)
    if not any(isinstance(part, str) for part in parts):
        return await prompt_tokens([part for part in parts if isinstance(part, int)], engine, state)
    check_length(len(parts), engine, "prompt")
    tokenizer = engine.tokenizer
    least = sum(tokenizer.min_tokens(part) if isinstance(part, str) else 1 for part in parts)
    check_length(least, engine, "prompt")

    def encode() -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += tokenizer.encode(part, add_special=not i, parse_special=True)
        return ids

    tokens = await state.in_thread(encode)
    if max(tokens, default=0) >= tokenizer.n_vocab:
        message = f"prompt: must hold token ids from 0 to {tokenizer.n_vocab - 1}"
        raise bad_request(message, "prompt", "invalid_value")
    return await prompt_tokens(tokens, engine, state)
