"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from server.api.common.requests.generation_options import check_fields
from server.api.llama_server.tokenize.schema import (
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeReply,
    TokenizeRequest,
)
from server.dependencies import ContextDep
from server.errors import bad_request
from server.http.json_route import Bytes, json_reply, json_router

router = json_router()


@router.post("/tokenize", response_model=None, responses={200: {"model": TokenizeReply}})
async def tokenize(body: TokenizeRequest, context: ContextDep) -> Response:
    """Token ids of a text."""
    tokenizer = context.select_engine(body.model).tokenizer
    check_fields(body, context)
    special = body.parse_special is not False

    ids = [part for part in body.content if isinstance(part, int)]
    if ids and max(ids) >= tokenizer.n_vocab:
        message = f"content: token ids must be from 0 to {tokenizer.n_vocab - 1}, not {max(ids)}"
        raise bad_request(message, "content", "invalid_value")

    def work() -> Bytes:
        tokens: list[Any] = []
        for i, part in enumerate(body.content):
            if isinstance(part, int):
                tokens.append(part)
            else:
                first = bool(body.add_special) and not i
                tokens += tokenizer.encode(part, add_special=first, parse_special=special)
        if body.with_pieces:
            tokens = [{"id": id, "piece": _piece(tokenizer, id)} for id in tokens]
        return json_reply({"tokens": tokens}, context)

    return await context.in_thread(work)


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
    """Text of token ids, special ones written out. Bytes that are not UTF-8 become U+FFFD."""
    tokenizer = context.select_engine(body.model).tokenizer
    check_fields(body, context)
    if body.tokens and max(body.tokens) >= tokenizer.n_vocab:
        message = f"tokens: token ids must be from 0 to {tokenizer.n_vocab - 1}, not {max(body.tokens)}"
        raise bad_request(message, "tokens", "invalid_value")
    # As llama-server: the first space stays, and special tokens are written out.
    text = await context.in_thread(tokenizer.decode, body.tokens, skip_special=False)
    return json_reply({"content": text}, context)
