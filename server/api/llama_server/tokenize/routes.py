"""POST /tokenize, /detokenize, /apply-template: what a prompt becomes, without generating."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from server.api.llama_server.tokenize.schema import (
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeReply,
    TokenizeRequest,
)
from server.api.openai.chat.parser import chat_input
from server.api.openai.chat.schema import TemplateReply, TemplateRequest
from server.dependencies import StateDep
from server.errors import bad_request
from server.http.json_route import Bytes, json_router
from server.input import processor
from server.input.chat import chat_text

router = json_router()


def _reply(reply: dict[str, Any], warnings: list[str]) -> Bytes:
    return Bytes(msgspec.json.encode({**reply, "warnings": warnings} if warnings else reply))


@router.post("/tokenize", response_model=None, responses={200: {"model": TokenizeReply}})
async def tokenize(body: TokenizeRequest, state: StateDep) -> Response:
    """Token ids of a text."""
    tokenizer = state.engine(body.model).tokenizer
    special = body.parse_special is not False

    ids = [part for part in body.content if isinstance(part, int)]
    if ids and max(ids) >= tokenizer.n_vocab:
        message = f"content: ids go from 0 to {tokenizer.n_vocab - 1}, not {max(ids)}"
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
        return _reply({"tokens": tokens}, processor.unknown_fields(body))

    return await state.in_thread(work)


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
async def detokenize(body: DetokenizeRequest, state: StateDep) -> Response:
    """Text of token ids, special ones written out. Bytes that are no UTF-8 become U+FFFD."""
    tokenizer = state.engine(body.model).tokenizer
    if body.tokens and max(body.tokens) >= tokenizer.n_vocab:
        message = f"tokens: ids go from 0 to {tokenizer.n_vocab - 1}, not {max(body.tokens)}"
        raise bad_request(message, "tokens", "invalid_value")
    # As llama-server: a part of a text keeps its first space, and special tokens are seen.
    text = await state.in_thread(tokenizer.decode, body.tokens, skip_special=False)
    return _reply({"content": text}, processor.unknown_fields(body))


@router.post("/apply-template", response_model=None, responses={200: {"model": TemplateReply}})
async def apply_template(body: TemplateRequest, state: StateDep) -> Response:
    """The prompt that the model's chat template makes of messages."""
    engine = state.engine(body.model)
    warnings = processor.unknown_fields(body)
    text = await chat_text(chat_input(body, warnings), engine, state, warnings)
    return _reply({"prompt": text}, warnings)
