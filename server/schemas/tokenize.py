"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from server.schemas.common import Reply, Schema, is_token

MAX_TOKENS = 1 << 18


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise ValueError("must be a list of token ids")
    if len(value) > MAX_TOKENS:
        raise ValueError(f"may hold at most {MAX_TOKENS} ids, not {len(value)}")
    if not all(map(is_token, value)):
        raise ValueError("must be a list of token ids")
    return value


IdList = Annotated[
    list[int],
    PlainValidator(_ids),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 0}}),
]


class TokenizeRequest(Schema):
    model: str | None = Field(None, max_length=512)
    content: str = Field(description="the text")
    add_special: bool | None = Field(None, description="add what a prompt begins with (default false)")
    parse_special: bool | None = Field(None, description="read special tokens in the text (default true)")
    with_pieces: bool | None = Field(None, description="tell each token's text, too")


class Piece(Reply):
    id: int
    piece: str | list[int] = Field(description="bytes, if it is only a part of a character")


class TokenizeReply(Reply):
    tokens: list[int] | list[Piece]


class DetokenizeRequest(Schema):
    model: str | None = Field(None, max_length=512)
    tokens: IdList = Field(description="token ids")


class DetokenizeReply(Reply):
    content: str
