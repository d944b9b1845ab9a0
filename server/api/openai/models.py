"""GET /v1/models, with the fields that clients of OpenAI and Anthropic look for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from server.api.common.replies.model_info import public_info
from server.api.common.replies.model_status import model_status
from server.dependencies import ContextDep, StateDep
from server.errors import wrong
from server.http.route import Route
from server.registry.served_model import ServedModel
from server.state import State

router = APIRouter(route_class=Route)


def _model(model: ServedModel, state: State) -> dict[str, Any]:
    engine, name = model.engine, model.name
    card = {
        "id": name,
        "object": "model",
        "created": int(state.started),
        "owned_by": "ggserve",
        "state": model.state if engine is None or model.draining else engine.state,
        "type": "model",
        "display_name": name,
        "created_at": state.started_at,
        "lifecycle": "active",
        "aliases": [name, *(alias for alias, served in state.aliases.items() if served == name)],
        "tags": state.settings.tag,
    }
    if state.registry.is_router:  # clients that see it expect llama-server's router
        card["status"] = model_status(model)
    if engine is not None and engine.info is not None:
        card |= {"max_input_tokens": engine.n_ctx, "max_tokens": engine.n_ctx}
        card["meta"] = public_info(engine.info)
    return card


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(
    state: StateDep,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="maximum number of models; default: all")
    ] = None,
    after_id: Annotated[str | None, Query(description="only models after this one")] = None,
    before_id: Annotated[str | None, Query(description="only models before this one")] = None,
) -> dict[str, Any]:
    """List the served models, loaded or not, for the clients of all APIs."""
    await state.registry.refresh()
    served = state.registry.models
    names = list(served)
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
        "data": [_model(served[name], state) for name in page],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": len(page) < len(rest),
    }


@router.get("/v1/models/{id:path}")
async def model(id: str, context: ContextDep) -> dict[str, Any]:
    """Describe one model; its id may contain slashes. `meta` has the placement of its layers."""
    return _model(context.find_model(id), context.state)
