"""GET /props and /slots, as llama-server's clients ask for them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server import prompts
from server.deps import StateDep
from server.errors import ApiError

router = APIRouter()


@router.get("/props")
async def props(state: StateDep, model: str | None = None) -> dict[str, Any]:
    """What a client may want to know of a model before it asks."""
    engine = state.engine(model)
    tokenizer = engine.tokenizer
    facts = await prompts.facts_of(engine, state)
    source = getattr(facts.template, "source", None)

    def text(id: int | None) -> str:
        return "" if id is None else tokenizer.token_text(id)

    return {
        "model_alias": engine.name,
        "total_slots": state.settings.parallel,
        "default_generation_settings": {"n_ctx": engine.n_ctx, "n_batch": state.settings.batch_size},
        "max_batch_size": engine.max_batch_size,
        "chat_template": source or "",
        "bos_token": text(tokenizer.bos_id),
        "eos_token": text(tokenizer.eos_id),
    }


@router.get("/slots")
async def slots(state: StateDep, model: str | None = None) -> list[dict[str, Any]]:
    """Places in the batch, taken and free."""
    if state.settings.no_slots:
        raise ApiError(501, "the view of slots is off; start without --no-slots", code="not_supported")
    engine = state.engine(model)
    taken: list[dict[str, Any]] = [
        {"is_processing": True, "task": info.id, "n_prompt": info.n_prompt, "n_decoded": info.n_generated}
        for info in engine.requests()
        if info.state != "queued"
    ]
    free: list[dict[str, Any]] = [{"is_processing": False}] * max(0, state.settings.parallel - len(taken))
    return [{"id": i, "n_ctx": engine.n_ctx, **slot} for i, slot in enumerate([*taken, *free])]
