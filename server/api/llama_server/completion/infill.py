"""POST /infill: from its request to a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.api.llama_server.completion.parser import check_choices, limit_of, native_job
from server.input import infill
from server.input.tokenize import facts_of

if TYPE_CHECKING:
    from server.api.llama_server.completion.schema import InfillRequest
    from server.dependencies import Engine, State
    from server.generation.job import Job
    from server.http.middleware.access_log import Record

_LEAST = 16  # tokens that are kept free for what is generated, where no limit is given


async def infill_job(body: InfillRequest, state: State, record: Record) -> Job:
    """What does not fit into the context is left out, with a warning."""
    engine = state.engine(body.model)
    infill.require(engine)
    check_choices(body, 1, state)
    await facts_of(engine, state)  # makes sure that the tokenizer is there
    extra = [infill.Piece(_near(p.text, engine), p.filename or "tmp") for p in body.input_extra or ()]
    prefix = _near(body.input_prefix + (body.prompt or ""), engine)
    suffix = _near(body.input_suffix, engine, end=False)
    gap = await state.in_thread(infill.gap, engine.tokenizer, prefix, suffix, extra)
    limit = limit_of(body, [])
    asked = min(_LEAST if limit is None else limit, engine.n_ctx // 2)
    fitting = gap.cut_to(engine.n_ctx - infill.N_MARKS - max(asked, 1))
    job = await native_job(body, [fitting.prompt(engine.tokenizer)], engine, state, record)
    for name, whole, part in zip(("input_extra", "input_prefix", "input_suffix"), gap, fitting, strict=True):
        if len(part) < len(whole):
            job.warnings.append(f"{name}: only {len(part)} of its tokens fit into the context")
    return job


def _near(text: str, engine: Engine, end: bool = True) -> str:
    """A text, or what of it is nearest to the gap: more than fits, so that no more is tokenised."""
    least = engine.tokenizer.min_tokens(text)
    if least <= 2 * engine.n_ctx:
        return text
    n = len(text) * 2 * engine.n_ctx // least
    return text[-n:] if end else text[:n]
