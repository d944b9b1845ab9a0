"""Parses an /infill request into a `CompletionInput`."""

from __future__ import annotations

from server.api.common.requests.structured_output import requested_constraint
from server.api.llama_server.completion.schema import InfillRequest
from server.generation.options import GenerationOptions
from server.generation.request_context import RequestContext
from server.input import infill
from server.input.completion import CompletionInput
from server.worker.engine import Engine

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
