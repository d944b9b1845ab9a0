"""Lookup of stored conversations, for their routes and for responses that belong to one."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.openai.conversations.store import ConversationStore, Item, StoredConversation
from server.errors import ApiError, wrong
from server.generation.request_context import RequestContext


def find_conversation(
    id: str, param: str, store: ConversationStore, context: RequestContext
) -> StoredConversation:
    """The conversation. Raises ApiError (404) if this client has none with this id."""
    conversation = store.get(id, context.owner)
    if conversation is None:
        message = f"{param}: no conversation {id[:128]!r} is stored; it may have expired"
        raise ApiError(404, message, param=param, code="conversation_not_found")
    return conversation


def refuse_known_ids(items: Sequence[Item], conversation: StoredConversation, param: str) -> None:
    """Raises ApiError if an item has the id of an item that the conversation already contains."""
    known = set(conversation.entries)
    for item in items:
        if item["id"] in known:
            raise wrong(param, f"the conversation has an item {item['id'][:128]!r} already")
        known.add(item["id"])
