"""Inputs of embeddings and rankings: texts as token ids, within the limits of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.errors import ApiError, ContextExceeded, wrong
from server.generation.request_context import RequestContext
from server.input.processor import INLINE_CHARS
from server.worker.engine import Engine

Input = list[str | list[int]]  # one input: texts and token ids, one after the other
_CHARS_PER_TOKEN = 64  # of a text that is cut, no more than this times the limit is tokenized


async def input_tokens(
    inputs: Sequence[Input], context: RequestContext, param: str, cut_to: int | None = None
) -> list[list[int]]:
    """Token ids of each input, at least one and at most as many as a session holds.

    cut_to: truncate longer inputs to this many tokens, with a warning; -1: to as many as a session holds.
    """
    check_number(len(inputs), context, param)
    several = len(inputs) > 1
    limit = _limit(cut_to, context.engine)

    def encode() -> list[tuple[list[int], str]]:
        return [
            _encode(parts, context.engine, f"{param}[{i}]" if several else param, limit)
            for i, parts in enumerate(inputs)
        ]

    size = sum(len(part) for parts in inputs for part in parts)
    encoded = encode() if size <= INLINE_CHARS else await context.in_thread(encode)
    for _, remark in encoded:
        if remark:
            context.warn(remark)
    return [tokens for tokens, _ in encoded]


async def pair_tokens(
    query: str,
    documents: Sequence[str],
    context: RequestContext,
    param: str,
    cut_to: int | None = None,
) -> tuple[list[list[int]], list[int]]:
    """Token ids of the query with each document, and where the document begins.

    cut_to: as for `input_tokens`, for query and document together; documents are truncated.
    """
    check_number(len(documents), context, param)
    engine = context.engine
    n_ctx, limit = engine.n_ctx, _limit(cut_to, engine)

    def encode() -> list[tuple[list[int], int, str]]:
        least = engine.tokenizer.min_tokens(query, n_ctx + 1)
        if least > n_ctx:
            raise too_large(least, engine, "query", "at least ", cut=False)
        return [
            _encode_pair(query, document, engine, f"{param}[{i}]", limit, least)
            for i, document in enumerate(documents)
        ]

    size = len(documents) * len(query) + sum(map(len, documents))
    encoded = encode() if size <= INLINE_CHARS else await context.in_thread(encode)
    for _, _, remark in encoded:
        if remark:
            context.warn(remark)
    return [tokens for tokens, _, _ in encoded], [start for _, start, _ in encoded]


def check_number(n: int, context: RequestContext, param: str) -> None:
    """Refuse more inputs than --max-inputs."""
    most = context.state.settings.max_inputs
    if n > most:
        raise wrong(param, f"has {n} items, the limit is {most} (--max-inputs)")


def _limit(cut_to: int | None, engine: Engine) -> int | None:
    """The maximum number of tokens of an input; None: no truncation."""
    return engine.n_ctx if cut_to == -1 else cut_to


def _encode(parts: Input, engine: Engine, param: str, limit: int | None) -> tuple[list[int], str]:
    """Token ids of an input, and a warning if it was truncated."""
    tokenizer, n_ctx = engine.tokenizer, engine.n_ctx
    tokens: list[int] = []
    shortened = False
    for i, part in enumerate(parts):
        if isinstance(part, str):
            if limit is None:  # what cannot fit is refused before it is tokenized
                least = len(tokens) + tokenizer.min_tokens(part, n_ctx + 1)
                if least > n_ctx:
                    raise too_large(least, engine, param, "at least ")
            text = part if limit is None else _beginning(part, limit, tokenizer)
            shortened = shortened or len(text) < len(part)
            tokens += tokenizer.encode(text, add_special=not i, parse_special=True)
        else:
            if max(part, default=0) >= tokenizer.n_vocab:
                raise wrong(param, f"token ids go from 0 to {tokenizer.n_vocab - 1}, not {max(part)}")
            tokens += part
    if not tokens:
        raise wrong(param, "is empty")
    remark = ""
    if limit is not None and len(tokens) > limit:
        is_text = len(parts) == 1 and isinstance(parts[0], str)
        if is_text and limit <= len(tokenizer.encode("")):
            raise wrong("truncate_prompt_tokens", f"{limit} tokens leave no room for the text of {param}")
        remark = _cut_remark(param, len(tokens), limit, exact=not shortened)
        tokens = _cut(tokens, limit, _n_end(tokenizer) if is_text else 0)
    if len(tokens) > n_ctx:
        raise too_large(len(tokens), engine, param)
    return tokens, remark


def _encode_pair(
    query: str, document: str, engine: Engine, param: str, limit: int | None, least: int
) -> tuple[list[int], int, str]:
    """Token ids, where the document begins, and a warning if it was truncated. least: tokens of the query."""
    tokenizer, n_ctx = engine.tokenizer, engine.n_ctx
    if limit is None:
        fewest = least + tokenizer.min_tokens(document, n_ctx + 1)
        if fewest > n_ctx:
            raise too_large(fewest, engine, param, "with the query at least ")
    text = document if limit is None else _beginning(document, limit, tokenizer)
    tokens, start = tokenizer.encode_pair(query, text)
    if not tokens:
        raise wrong(param, "is empty")
    remark = ""
    if limit is not None and len(tokens) > limit:
        n_end = _n_end(tokenizer)
        if start + n_end >= limit:
            message = f"query: has {start} tokens, which leave no room for a document within {limit}"
            raise ContextExceeded(message, "query", start + n_end + 1, limit)
        remark = _cut_remark(param, len(tokens), limit, exact=text == document, with_query=True)
        tokens = _cut(tokens, limit, n_end)
    if len(tokens) > n_ctx:
        raise too_large(len(tokens), engine, param, "with the query ")
    return tokens, start, remark


def _beginning(text: str, limit: int, tokenizer: Any) -> str:
    """The part of a text that is sure to contain `limit` tokens; all of it unless it is very long."""
    n = _CHARS_PER_TOKEN * limit
    while n < len(text):
        # The last tokens may be others where the text ends in a word.
        if len(tokenizer.encode(text[:n], add_special=False, parse_special=True)) > limit + 16:
            return text[:n]
        n *= 2
    return text


def _n_end(tokenizer: Any) -> int:
    """The number of special tokens added after a text, which truncation keeps."""
    return len(tokenizer.encode("")) - int(tokenizer.add_bos)


def _cut(tokens: list[int], limit: int, n_end: int) -> list[int]:
    """The first `limit` tokens, of which the last `n_end` are the last ones of the whole."""
    return tokens[: limit - n_end] + tokens[len(tokens) - n_end :]


def _cut_remark(param: str, n: int, limit: int, *, exact: bool, with_query: bool = False) -> str:
    many = f"{n}" if exact else f"more than {n}"
    query = " with the query" if with_query else ""
    return f"{param}: only the first {limit} of {many} tokens{query} are used"


def too_large(n: int, engine: Engine, param: str, about: str = "", cut: bool = True) -> ApiError:
    """cut: `truncate`, a field of every such route, can shorten the input."""
    n_ctx, trained = engine.n_ctx, (engine.info or {}).get("n_ctx_train", 0)
    message = f"{param}: is too large: it has {about}{n} tokens, the model takes at most {n_ctx}"
    advice = ["shorten it"]
    if cut:
        advice.append("send truncate: true to use its beginning only")
    if n_ctx < trained:
        advice.append(f"raise --context-size (the model was trained for {trained})")
    text = advice[0] if len(advice) == 1 else f"{', '.join(advice[:-1])} or {advice[-1]}"
    return ContextExceeded(f"{message}; {text}", param, n, n_ctx)
