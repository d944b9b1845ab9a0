"""The stores that the application keeps for clients that refer to objects by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from server.api.openai.conversations.store import ConversationStore
from server.api.openai.responses.store import ResponseStore
from server.dependencies import ContextDep


@dataclass(frozen=True)
class Stores:
    """The stores, each with the same limits."""

    responses: ResponseStore[Any]
    conversations: ConversationStore


async def get_stores(request: Request, context: ContextDep) -> Stores:
    """The application's stores, created at the first request."""
    stores: Stores | None = getattr(request.app.state, "openai_stores", None)
    if stores is None:
        settings = context.state.settings
        limits = settings.max_stored_responses, settings.responses_ttl_s, settings.responses_max_bytes
        stores = request.app.state.openai_stores = Stores(ResponseStore(*limits), ConversationStore(*limits))
    return stores


StoresDep = Annotated[Stores, Depends(get_stores)]
