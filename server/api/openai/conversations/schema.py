"""/v1/conversations and the items of conversations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.schema import Reply, Schema, field, required
from server.api.openai.responses.parser import MAX_ITEMS
from server.api.openai.responses.schema import Metadata

_ITEMS = [{"type": "message", "role": "user", "content": "Hello"}]


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("must be a list of items")
    return value


Items = Annotated[
    list[Any],
    PlainValidator(_items),
    WithJsonSchema({"type": "array", "items": {"type": "object"}, "maxItems": MAX_ITEMS}),
]


class ConversationRequest(Schema):
    items: Items | None = field("the initial items: messages, function calls and their outputs", _ITEMS)
    metadata: Metadata = field("returned with the conversation", {"topic": "cats"})


class MetadataRequest(Schema):
    metadata: Metadata = required("replaces the metadata; null: none", {"topic": "dogs"})


class ItemsRequest(Schema):
    items: Items = required("items to append", _ITEMS)


class ConversationReply(Reply):
    id: str = required("id of the conversation", "conv_0123456789abcdef01234567")
    object: str = required("always `conversation`", "conversation")
    created_at: int = required("Unix time in seconds", 1767225600)
    metadata: dict[str, str] = required("metadata of the request", {"topic": "cats"})
    warnings: list[str] | None = field("request fields that had no effect", ["user has no effect"])


class ConversationDeletedReply(Reply):
    id: str = required("id of the conversation", "conv_0123456789abcdef01234567")
    object: str = required("always `conversation.deleted`", "conversation.deleted")
    deleted: bool = required("always true", True)
