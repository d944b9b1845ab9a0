"""Parses llama-server's completion and infill requests into a `CompletionInput` and `GenerationOptions`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from server.api.common.requests.output_fields import StructuredFields
from server.api.common.requests.parser import check_fields, generation_options, sampling_fields
from server.api.common.requests.structured_output import requested_constraint
from server.api.llama_server.completion.schema import InfillRequest, NativeFields, NativeRequest
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input import infill
from server.input.completion import CompletionInput
from server.worker.engine import Engine

# Fields of what we do not have, and the values at which there is nothing to warn of.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "backend_sampling": (False,),
    "n_cache_reuse": (0,),
    "n_indent": (0,),
}


async def parse_options(body: NativeFields, context: RequestContext) -> GenerationOptions:
    """The fields other than the prompt. Warns about those without effect."""
    check_fields(body, context)
    _warn_of_fields(body, context)
    sampling = sampling_fields(body, context)
    if body.logit_bias is not None:
        sampling["logit_bias"] = await context.in_thread(_bias, body.logit_bias, context.engine)
    n_probs = body.n_probs if body.n_probs is not None else body.logprobs
    limited_ms = body.t_max_predict_ms is not None and body.t_max_predict_ms > 0
    return generation_options(
        body,
        context,
        id_prefix="cmpl-",
        stream=body.stream,
        sampling=sampling,
        max_tokens=limit_of(body, context),
        limit_field="n_predict",
        logprobs=n_probs or None,
        post_sampling_logprobs=bool(body.post_sampling_probs),
        n=body.n or body.n_cmpl or 1,
        n_field="n" if body.n else "n_cmpl",
        n_discard=body.n_discard or 0,
        line_break_after_ms=body.t_max_predict_ms if limited_ms else None,
        return_tokens=bool(body.return_tokens or body.stream),
    )


def parse_completion(body: NativeRequest, context: RequestContext) -> CompletionInput:
    """The prompts."""
    prompts = [parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts for parts in body.prompt]
    constraint = None
    if not body.model_fields_set.isdisjoint(StructuredFields.model_fields):
        constraint = requested_constraint(body, context)
    return CompletionInput(prompts, constraint)


def limit_of(body: NativeFields, context: RequestContext) -> int | None:
    """The token limit. None: the request sets none; -1: no limit."""
    limits = {
        name: value
        for name in ("n_predict", "max_completion_tokens", "max_tokens")
        if (value := getattr(body, name)) is not None
    }
    if not limits:
        return None
    first, *others = limits
    for name in others:
        if limits[name] != limits[first]:
            context.warn(f"{name} has no effect: {first} is set")
    limit: int = limits[first]
    return max(limit, -1)


def _warn_of_fields(body: NativeFields, context: RequestContext) -> None:
    for name, values in _NEUTRAL.items():
        value = getattr(body, name)
        if value is not None and value not in values:
            context.warn(f"{name} has no effect: this server does not have it")
    if body.n is not None and body.n_cmpl is not None and body.n != body.n_cmpl:
        context.warn("n_cmpl has no effect: n is set")
    if body.stream_options is not None:
        context.warn("stream_options has no effect: the last event has all counts")
    if body.logprobs is not None and body.n_probs is not None and body.logprobs != body.n_probs:
        context.warn("logprobs has no effect: n_probs is set")
    if body.post_sampling_probs and not (body.n_probs or body.logprobs):
        context.warn("post_sampling_probs has no effect: n_probs is not set")
    if body.return_progress and not body.stream:
        context.warn("return_progress has no effect: stream is not true")


def _bias(entries: Iterable[tuple[int | str, float]], engine: Engine) -> dict[int, float]:
    """The bias by token id. A text's bias applies to each of its tokens; several biases of one token are
    added up.
    """
    biases: dict[int, float] = {}
    for token, bias in entries:
        ids = [token] if isinstance(token, int) else engine.tokenizer.encode(token, add_special=False)
        for id in ids:
            total = biases.get(id, 0.0) + bias
            biases[id] = total if total == -math.inf else max(-1e6, min(1e6, total))
    return biases


_LEAST = 16  # tokens that are kept free for the output where no limit is set


async def parse_infill(
    body: InfillRequest, options: GenerationOptions, context: RequestContext
) -> CompletionInput:
    """The prompt. What does not fit into the context is dropped, with a warning."""
    engine = context.engine
    infill.require(engine)
    files = [
        infill.ExtraFile(_near(file.text, engine), file.filename or "tmp") for file in body.input_extra or ()
    ]
    prefix = _near(body.input_prefix + (body.prompt or ""), engine)
    suffix = _near(body.input_suffix, engine, end=False)
    gap = await context.in_thread(infill.gap, engine.tokenizer, prefix, suffix, files)
    limit = options.max_tokens
    n_free = min(_LEAST if limit is None or limit < 0 else limit, engine.n_ctx // 2)
    fitting = gap.cut_to(engine.n_ctx - infill.N_MARKS - max(n_free, 1))
    for name, whole, part in zip(("input_extra", "input_prefix", "input_suffix"), gap, fitting, strict=True):
        if len(part) < len(whole):
            context.warn(f"{name}: only {len(part)} of its tokens fit into the context")
    return CompletionInput([fitting.prompt(engine.tokenizer)], requested_constraint(body, context))


def _near(text: str, engine: Engine, end: bool = True) -> str:
    """The part of a text nearest to the gap: somewhat more than fits, so that not much more is tokenized."""
    least = engine.tokenizer.min_tokens(text)
    if least <= 2 * engine.n_ctx:
        return text
    n = len(text) * 2 * engine.n_ctx // least
    return text[-n:] if end else text[:n]
