"""Turns the raw prompts of a completion into a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.chat.prompt import Prompt
from server.chat.request import RequestedConstraint
from server.errors import wrong
from server.generation.job import Job
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input import infill
from server.input.constraints import check_constraint
from server.input.processor import (
    check_generates,
    check_length,
    check_n_sequences,
    new_job,
    sampling_parameters,
    tokenize,
)

RawPrompt = str | Sequence[int] | Sequence[int | str]  # text, token ids, or both in turn


@dataclass(frozen=True)
class CompletionInput:
    """Prompts to continue. suffix: the text after the gap to fill."""

    prompts: Sequence[RawPrompt]
    constraint: RequestedConstraint | None = None
    suffix: str | None = None


async def process_completion(
    completion: CompletionInput, options: GenerationOptions, context: RequestContext
) -> Job:
    """The job that continues prompts. Raises ApiError if the request is invalid."""
    check_n_sequences(options, len(completion.prompts), context)
    if completion.suffix:
        infill.require(context.engine, "suffix")
        suffix = completion.suffix
        tokens = [await _with_suffix(p, suffix, context) for p in completion.prompts]
    else:
        tokens = [await _tokens(prompt, context) for prompt in completion.prompts]
    params = sampling_parameters(options, context)
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
    return new_job(prompts, options, params, context)


async def _tokens(prompt: RawPrompt, context: RequestContext) -> list[int]:
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


async def _with_suffix(prompt: RawPrompt, suffix: str, context: RequestContext) -> list[int]:
    """The prompt of a completion that has a suffix."""
    engine = context.engine
    tokenizer = engine.tokenizer
    before: list[int] = []
    if isinstance(prompt, str):
        check_length(tokenizer.min_tokens(prompt), engine, "prompt")
    else:
        before = await _tokens(prompt, context)
    check_length(tokenizer.min_tokens(suffix), engine, "suffix")
    around = await context.in_thread(infill.gap, tokenizer, prompt if isinstance(prompt, str) else "", suffix)
    tokens = around._replace(prefix=before or around.prefix).prompt(tokenizer)
    check_length(len(around.suffix) + infill.N_MARKS, engine, "suffix")
    check_length(len(tokens), engine, "prompt")
    return tokens
