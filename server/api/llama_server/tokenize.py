"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import PlainValidator, WithJsonSchema

from server.api.common.requests.generation_fields import IDS_SCHEMA, is_token
from server.api.common.requests.parser import check_fields
from server.api.common.schema import INT_MAX, Reply, Schema, field, required
from server.api.llama_server.props import ModelQuery
from server.dependencies import ContextDep
from server.errors import missing, wrong
from server.http.json_reply import Bytes, json_reply
from server.http.json_route import json_router
from server.http.route import Route

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


def _parts(value: Any) -> list[str | int]:
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
    PlainValidator(_parts),
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


router = json_router()
get_router = APIRouter(route_class=Route)


@router.post("/tokenize", response_model=None, responses={200: {"model": TokenizeReply}})
async def tokenize(body: TokenizeRequest, context: ContextDep) -> Response:
    """Return the token ids of a text."""
    tokenizer = context.select_engine(body.model).tokenizer
    check_fields(body, context)
    special = body.parse_special is not False
    content = _content(body)
    add_special = body.prompt is not None if body.add_special is None else body.add_special
    if body.add_special_tokens is not None:
        add_special = body.add_special_tokens

    ids = [part for part in content if isinstance(part, int)]
    if ids and max(ids) >= tokenizer.n_vocab:
        raise wrong("content", f"token ids must be from 0 to {tokenizer.n_vocab - 1}, not {max(ids)}")

    def work() -> Bytes:
        tokens: list[Any] = []
        for i, part in enumerate(content):
            if isinstance(part, int):
                tokens.append(part)
            else:
                first = add_special and not i
                tokens += tokenizer.encode(part, add_special=first, parse_special=special)
        if body.with_pieces:
            tokens = [{"id": id, "piece": _piece(tokenizer, id)} for id in tokens]
        reply: dict[str, Any] = {"tokens": tokens}
        if body.prompt is not None:
            reply |= {"count": len(tokens), "max_model_len": context.engine.n_ctx}
        return json_reply(reply, context)

    return await context.in_thread(work)


def _content(body: TokenizeRequest) -> list[str | int]:
    if body.prompt is not None:
        if body.content is not None:
            raise wrong("prompt", "cannot be combined with content")
        return [body.prompt]
    if body.content is None:
        raise missing("content")
    return body.content


@get_router.get("/tokenizer_info", response_model=None, responses={200: {"model": TokenizerInfoReply}})
async def tokenizer_info(context: ContextDep, model: ModelQuery = None) -> dict[str, Any]:
    """Return the special tokens of a model."""
    engine = context.select_engine(model)
    tokenizer = engine.tokenizer
    names = [None if id is None else tokenizer.token_text(id) for id in (tokenizer.bos_id, tokenizer.eos_id)]
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "bos_token": names[0],
        "eos_token": names[1],
        "pad_token": None,
        "add_bos_token": tokenizer.add_bos,
        "model_max_length": engine.n_ctx,
    }


def _piece(tokenizer: Any, id: int) -> str | list[int]:
    data: bytes = tokenizer.token_bytes(id)
    if not data:
        text: str = tokenizer.token_text(id)
        return text
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


@router.post("/detokenize", response_model=None, responses={200: {"model": DetokenizeReply}})
async def detokenize(body: DetokenizeRequest, context: ContextDep) -> Response:
    """Return the text of token ids, with special tokens written out.

    Bytes that are not UTF-8 become U+FFFD.
    """
    tokenizer = context.select_engine(body.model).tokenizer
    check_fields(body, context)
    if body.tokens and max(body.tokens) >= tokenizer.n_vocab:
        raise wrong("tokens", f"token ids must be from 0 to {tokenizer.n_vocab - 1}, not {max(body.tokens)}")
    # As llama-server: the first space stays, and special tokens are written out.
    text = await context.in_thread(tokenizer.decode, body.tokens, skip_special=False)
    return json_reply({"content": text, "prompt": text}, context)
