"""Parses OpenAI's completion requests into a `CompletionInput` and `GenerationOptions`."""

from __future__ import annotations

from server.api.common.requests.output_fields import OUTPUT_FIELDS
from server.api.common.requests.parser import check_fields, choice_options
from server.api.common.requests.structured_output import requested_constraint
from server.api.openai.completions.schema import CompletionRequest
from server.errors import wrong
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input.completion import CompletionInput


def parse_options(body: CompletionRequest, context: RequestContext) -> GenerationOptions:
    """The fields other than the prompt. Warns about unknown ones."""
    check_fields(body, context)
    n = body.n or 1
    best_of = body.best_of or n
    if best_of < n:
        raise wrong("best_of", f"is {best_of}, less than n ({n})")
    if best_of > n and body.stream:
        raise wrong("best_of", "the best is known at the end only; with stream it must be n")
    return choice_options(
        body,
        context,
        id_prefix="cmpl-",
        max_tokens=body.max_tokens,
        logprobs=(body.n_probs or None) if body.logprobs is None else body.logprobs,
        echo=bool(body.echo),
        best_of=best_of,
        n_field="best_of" if best_of > n else "n",
    )


def parse_completion(body: CompletionRequest, context: RequestContext) -> CompletionInput:
    """The prompts."""
    if any(isinstance(part, str) for prompt in body.prompt if isinstance(prompt, list) for part in prompt):
        raise wrong("prompt", "must be a string, a list of token ids, or a list of either")
    constraint = None
    if not body.model_fields_set.isdisjoint(OUTPUT_FIELDS):
        constraint = requested_constraint(body, context)
    return CompletionInput(body.prompt, constraint, suffix=body.suffix)
