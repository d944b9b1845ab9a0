"""GET /v1/models, with the fields that OpenAI's and Anthropic's clients look for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from server.api.common.replies.model_info import public_info
from server.dependencies import ContextDep, StateDep
from server.errors import wrong
from server.state import State
from server.worker.engine import Engine

router = APIRouter()


def _model(engine: Engine, state: State) -> dict[str, Any]:
    card = {
        "id": engine.name,
        "object": "model",
        "created": int(state.started),
        "owned_by": "ggserve",
        "state": engine.state,
        "type": "model",
        "display_name": engine.name,
        "created_at": state.started_at,
        "lifecycle": "active",
        "aliases": [engine.name, *(alias for alias, name in state.aliases.items() if name == engine.name)],
        "tags": state.settings.tag,
    }
    if engine.info is not None:
        card |= {"max_input_tokens": engine.n_ctx, "max_tokens": engine.n_ctx}
        card["meta"] = public_info(engine.info)
    return card


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(
    state: StateDep,
    limit: Annotated[int | None, Query(ge=1, le=1000, description="at most so many; default: all")] = None,
    after_id: Annotated[str | None, Query(description="only those after this one")] = None,
    before_id: Annotated[str | None, Query(description="only those before this one")] = None,
) -> dict[str, Any]:
    """The models served here, in one list for the clients of both APIs."""
    names = list(state.engines)
    for param, id in (("after_id", after_id), ("before_id", before_id)):
        if id is not None and id not in names:
            raise wrong(param, f"no model {id[:200]!r} is served here")
    start = 0 if after_id is None else names.index(after_id) + 1
    end = len(names) if before_id is None else names.index(before_id)
    rest = names[start:end]
    backwards = before_id is not None and after_id is None  # the page ends where the last one began
    page = (rest[-limit:] if backwards else rest[:limit]) if limit else rest
    return {
        "object": "list",
        "data": [_model(state.engines[name], state) for name in page],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": len(page) < len(rest),
    }


@router.get("/v1/models/{id:path}")
async def model(id: str, context: ContextDep) -> dict[str, Any]:
    """One model; its id may hold slashes. `meta` has the placement of its layers."""
    return _model(context.select_engine(id, ready=False), context.state)
