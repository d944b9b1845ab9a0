"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from server.api.common.requests.generation_fields import IDS_SCHEMA, is_token
from server.api.common.schema import INT_MAX, Reply, Schema, field, required

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
    WithJsonSchema({**IDS_SCHEMA, "maxItems": MAX_TOKENS}),
]


def _content(value: Any) -> list[str | int]:
    """Texts and token ids, in order."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(part, str) or is_token(part) for part in value):
        raise ValueError("must be a string, or a list of strings and token ids")
    if len(value) > MAX_TOKENS:
        raise ValueError(f"may hold at most {MAX_TOKENS} items, not {len(value)}")
    return value


_PART = {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": INT_MAX}]}
ContentField = Annotated[
    list[str | int],
    PlainValidator(_content),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}),
]


class TokenizeRequest(Schema):
    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    content: ContentField | None = field("the text, or a list of texts and token ids", "Once upon a time")
    prompt: str | None = field(
        "vLLM's name of `content`; the response then has vLLM's fields too", "Once upon"
    )
    add_special: bool | None = field(
        "add the special tokens with which a prompt begins (default: only with `prompt`)", False
    )
    add_special_tokens: bool | None = field("vLLM's name of `add_special`", False)
    parse_special: bool | None = field("recognize special tokens in the text (default: true)", True)
    with_pieces: bool | None = field("also return each token's text", True)


class TokenPiece(Reply):
    id: int = required("the token", 459)
    piece: str | list[int] = required(
        "the token's text, or bytes if it is only a part of a character", "Once"
    )


class TokenizeReply(Reply):
    tokens: list[int] | list[TokenPiece] = required(
        "token ids, or with `with_pieces` ids and texts", [459, 464, 264, 409]
    )
    count: int | None = field("with `prompt`: number of tokens", 4)
    max_model_len: int | None = field("with `prompt`: maximum context length", 4096)


class DetokenizeRequest(Schema):
    model: str | None = field("optional if only one model is served", "stories", max_length=512)
    tokens: IdList = required("token ids", [459, 464, 264, 409])


class DetokenizeReply(Reply):
    content: str = required("the text", "Once upon a time")
    prompt: str = required("the same, under vLLM's name", "Once upon a time")


class TokenizerInfoReply(Reply):
    """vLLM's format, for clients that evaluate models with a remote tokenizer."""

    tokenizer_class: str = required("the kind of tokenizer", "llama")
    bos_token: str | None = required("beginning-of-sequence token", "<s>")
    eos_token: str | None = required("end-of-sequence token", "</s>")
    pad_token: str | None = required("always null: nothing is padded", None)
    add_bos_token: bool = required("whether `add_special_tokens` adds the token", True)
    model_max_length: int = required("maximum context length", 4096)
