"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from server.api.common.requests.parser import check_fields
from server.api.llama_server.props import ModelQuery
from server.api.llama_server.tokenize.schema import (
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeReply,
    TokenizeRequest,
    TokenizerInfoReply,
)
from server.dependencies import ContextDep
from server.errors import missing, wrong
from server.http.json_reply import Bytes, json_reply
from server.http.json_route import json_router
from server.http.route import Route

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
