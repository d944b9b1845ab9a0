"""FastAPI dependencies of the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from server.generation.request_context import RequestContext, record_of
from server.state import State


# Coroutines, since the framework runs plain functions in threads, which costs more than a small request.
async def get_state(request: Request) -> State:
    state: State = request.app.state.ggserve
    return state


async def get_context(request: Request) -> RequestContext:
    state: State = request.app.state.ggserve
    # Without a client it fails: a public route must not act for anyone.
    return RequestContext(state, record_of(request.scope), request.scope["ggserve.client"])


StateDep = Annotated[State, Depends(get_state)]
ContextDep = Annotated[RequestContext, Depends(get_context)]
