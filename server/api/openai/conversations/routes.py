"""Conversations, to which responses add their input and output."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Response

from server.api.common.requests.parser import check_fields
from server.api.openai.conversations.access import find_conversation, refuse_known_ids
from server.api.openai.conversations.schema import (
    ConversationDeletedReply,
    ConversationReply,
    ConversationRequest,
    ItemsRequest,
    MetadataRequest,
)
from server.api.openai.conversations.store import ConversationStore, StoredConversation
from server.api.openai.item_list import PageDep, item_list
from server.api.openai.responses.parser import ItemReader, call_ids
from server.api.openai.responses.schema import ItemListReply, ItemReply
from server.api.openai.responses.tools import Item
from server.api.openai.stores import StoresDep
from server.dependencies import ContextDep
from server.errors import ApiError, wrong
from server.generation.request_context import RequestContext
from server.http.json_reply import json_reply
from server.http.json_route import json_router
from server.http.route import Route
from server.ids import new_id

router = APIRouter(route_class=Route)
json_routes = json_router()  # those with a body
_CONVERSATION: dict[int | str, dict[str, Any]] = {200: {"model": ConversationReply}}
_LIST: dict[int | str, dict[str, Any]] = {200: {"model": ItemListReply}}


ConversationId = Annotated[
    str, Path(description="of the conversation", examples=["conv_0123456789abcdef01234567"])
]


async def get_conversation(id: ConversationId, context: ContextDep, stores: StoresDep) -> StoredConversation:
    """The conversation that the path names."""
    return find_conversation(id, "id", stores.conversations, context)


ConversationDep = Annotated[StoredConversation, Depends(get_conversation)]


@json_routes.post("/v1/conversations", response_model=None, responses=_CONVERSATION)
async def create_conversation(body: ConversationRequest, context: ContextDep, stores: StoresDep) -> Response:
    """Create a conversation, with the request's items if there are any."""
    check_fields(body, context)
    if stores.conversations.most == 0:
        message = "no conversations are stored here (--max-stored-responses)"
        raise ApiError(400, message, code="conversations_not_stored")
    conversation = StoredConversation(new_id("conv_"), context.owner, int(time.time()), body.metadata or {})
    _add(body.items or [], conversation, stores.conversations, context)
    return json_reply(_reply(conversation), context)


@router.get("/v1/conversations/{id}", response_model=None, responses=_CONVERSATION)
async def retrieve_conversation(conversation: ConversationDep) -> dict[str, Any]:
    """Return a conversation without its items."""
    return _reply(conversation)


@json_routes.post("/v1/conversations/{id}", response_model=None, responses=_CONVERSATION)
async def update_conversation(
    body: MetadataRequest, conversation: ConversationDep, context: ContextDep, stores: StoresDep
) -> Response:
    """Replace the metadata of a conversation."""
    check_fields(body, context)
    if not stores.conversations.update(conversation, metadata=body.metadata or {}):
        raise _too_large("metadata", stores.conversations)
    return json_reply(_reply(conversation), context)


@router.delete(
    "/v1/conversations/{id}", response_model=None, responses={200: {"model": ConversationDeletedReply}}
)
async def delete_conversation(conversation: ConversationDep, stores: StoresDep) -> dict[str, Any]:
    """Delete a conversation and its items; responses that were part of it are kept."""
    stores.conversations.remove(conversation)
    return {"id": conversation.id, "object": "conversation.deleted", "deleted": True}


@json_routes.post("/v1/conversations/{id}/items", response_model=None, responses=_LIST)
async def add_items(
    body: ItemsRequest, conversation: ConversationDep, context: ContextDep, stores: StoresDep
) -> Response:
    """Add items to the end of a conversation."""
    check_fields(body, context)
    items = _add(body.items, conversation, stores.conversations, context)
    return json_reply(item_list(items, [item["id"] for item in items]), context)


@router.get("/v1/conversations/{id}/items", response_model=None, responses=_LIST)
async def list_items(conversation: ConversationDep, page: PageDep) -> dict[str, Any]:
    """The items of a conversation, newest first unless `order` says otherwise."""
    listed = page.of(conversation.entries)
    return {**listed, "data": [msgspec.json.decode(entry) for entry in listed["data"]]}


@router.get(
    "/v1/conversations/{id}/items/{item_id}", response_model=None, responses={200: {"model": ItemReply}}
)
async def retrieve_item(item_id: str, conversation: ConversationDep) -> Item:
    """Return one item of a conversation."""
    item = conversation.item(item_id)
    if item is None:
        raise _no_item(item_id)
    return item


@router.delete("/v1/conversations/{id}/items/{item_id}", response_model=None, responses=_CONVERSATION)
async def delete_item(item_id: str, conversation: ConversationDep, stores: StoresDep) -> dict[str, Any]:
    """Delete one item of a conversation."""
    if item_id not in conversation.entries:
        raise _no_item(item_id)
    stores.conversations.remove_item(conversation, item_id)
    return _reply(conversation)


def _add(
    values: list[Any], conversation: StoredConversation, store: ConversationStore, context: RequestContext
) -> list[Item]:
    """Append validated items to a conversation."""
    reader = ItemReader(lambda id: None, call_ids(conversation.items()), context)
    items = reader.read(values, "items")
    refuse_known_ids(items, conversation, "items")
    if not store.update(conversation, items):
        raise _too_large("items", store)
    return items


def _reply(conversation: StoredConversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created,
        "metadata": conversation.metadata,
    }


def _no_item(id: str) -> ApiError:
    message = f"item_id: the conversation has no item {id[:128]!r}"
    return ApiError(404, message, param="item_id", code="item_not_found")


def _too_large(param: str, store: ConversationStore) -> ApiError:
    message = f"the conversation would have more than {store.max_bytes} bytes (--responses-max-bytes)"
    return wrong(param, message)
