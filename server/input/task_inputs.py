"""Inputs of embeddings and rankings: texts to token ids, within the limits of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.errors import ApiError, bad_request
from server.generation.request_context import RequestContext
from server.input.tokenize import INLINE_CHARS

Input = list[str | list[int]]  # one input: texts and token ids, one after the other


async def input_tokens(inputs: Sequence[Input], context: RequestContext, param: str) -> list[list[int]]:
    """Token ids of each input, at least one and at most as many as a session holds."""
    check_number(len(inputs), context, param)
    engine = context.engine
    several = len(inputs) > 1

    def encode() -> list[list[int]]:
        return [
            _encode(parts, engine.tokenizer, engine.n_ctx, f"{param}[{i}]" if several else param)
            for i, parts in enumerate(inputs)
        ]

    size = sum(len(part) for parts in inputs for part in parts)
    return encode() if size <= INLINE_CHARS else await context.in_thread(encode)


async def pair_tokens(
    query: str, documents: Sequence[str], context: RequestContext, param: str
) -> tuple[list[list[int]], list[int]]:
    """Token ids of the query with each document, and where the document begins."""
    check_number(len(documents), context, param)
    tokenizer, n_ctx = context.engine.tokenizer, context.engine.n_ctx

    def encode() -> tuple[list[list[int]], list[int]]:
        least = tokenizer.min_tokens(query, n_ctx + 1)
        if least > n_ctx:
            raise too_large(least, n_ctx, "query", "at least ")
        pairs, second = [], []
        for i, document in enumerate(documents):
            where = f"{param}[{i}]"
            fewest = least + tokenizer.min_tokens(document, n_ctx + 1)
            if fewest > n_ctx:
                raise too_large(fewest, n_ctx, where, "with the query at least ")
            tokens, start = tokenizer.encode_pair(query, document)
            if not tokens:
                raise bad_request(f"{where}: is empty", where, "invalid_value")
            if len(tokens) > n_ctx:
                raise too_large(len(tokens), n_ctx, where, "with the query ")
            pairs.append(tokens)
            second.append(start)
        return pairs, second

    size = len(documents) * len(query) + sum(map(len, documents))
    return encode() if size <= INLINE_CHARS else await context.in_thread(encode)


def check_number(n: int, context: RequestContext, param: str) -> None:
    """At most --max-inputs."""
    most = context.state.settings.max_inputs
    if n > most:
        message = f"{param}: has {n} items, the limit is {most} (--max-inputs)"
        raise bad_request(message, param, "invalid_value")


def _encode(parts: Input, tokenizer: Any, n_ctx: int, param: str) -> list[int]:
    tokens: list[int] = []
    for i, part in enumerate(parts):
        if isinstance(part, str):
            # What cannot fit is refused before it is tokenized.
            least = len(tokens) + tokenizer.min_tokens(part, n_ctx + 1)
            if least > n_ctx:
                raise too_large(least, n_ctx, param, "at least ")
            tokens += tokenizer.encode(part, add_special=not i, parse_special=True)
        else:
            if max(part, default=0) >= tokenizer.n_vocab:
                message = f"{param}: token ids go from 0 to {tokenizer.n_vocab - 1}, not {max(part)}"
                raise bad_request(message, param, "invalid_value")
            tokens += part
    if not tokens:
        raise bad_request(f"{param}: is empty", param, "invalid_value")
    if len(tokens) > n_ctx:
        raise too_large(len(tokens), n_ctx, param)
    return tokens


def too_large(n: int, n_ctx: int, param: str, about: str = "") -> ApiError:
    message = f"{param}: is too large: it has {about}{n} tokens, the model takes at most {n_ctx}"
    return bad_request(f"{message}; shorten it or raise --context-size", param, "context_length_exceeded")
