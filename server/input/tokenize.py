"""Texts to token ids, within the limits of the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ContextOverflowError
from server.errors import ContextExceeded, bad_request, wrong
from server.generation.request_context import RequestContext
from server.input.requests import RawPrompt
from server.worker.engine import Engine
from server.worker.model_use import model_use

INLINE_CHARS = 2048  # texts up to here are tokenized in the event loop: a thread would take longer


def check_generates(engine: Engine) -> None:
    """Refuse models that only make embeddings or rank documents."""
    if (engine.info or {}).get("generates") is False:
        ranks = model_use(engine) == "ranking"
        does, path = ("ranks documents", "/v1/rerank") if ranks else ("makes embeddings", "/v1/embeddings")
        message = f"model: '{engine.name}' {does} and cannot generate text; use {path}"
        raise bad_request(message, "model", "cannot_generate")


async def prompt_tokens(prompt: RawPrompt, context: RequestContext) -> list[int]:
    """The prompt of a completion: at least one token, and room for one more. Raises ApiError (400)."""
    engine = context.engine
    check_generates(engine)
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        tokens = await tokenize([prompt], context, "prompt")
    else:
        check_length(len(prompt), engine, "prompt")
        tokens = await _mixed(prompt, context) if any(isinstance(part, str) for part in prompt) else [*prompt]  # type: ignore[list-item]
        if not all(type(id) is int and 0 <= id < tokenizer.n_vocab for id in tokens):
            raise wrong("prompt", f"token ids must be integers from 0 to {tokenizer.n_vocab - 1}")
    if not tokens:  # something must be computed: what a text begins with
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise wrong("prompt", "is empty")
        tokens = [start]
    check_length(len(tokens), engine, "prompt")
    return tokens


async def _mixed(parts: Sequence[int | str], context: RequestContext) -> list[int]:
    """Texts and token ids in turn. Only a text at the very beginning gets what texts begin with (BOS)."""
    tokenizer = context.engine.tokenizer
    least = sum(tokenizer.min_tokens(part) if isinstance(part, str) else 1 for part in parts)
    check_length(least, context.engine, "prompt")

    def encode() -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += tokenizer.encode(part, add_special=not i, parse_special=True)
        return ids

    return await context.in_thread(encode)


async def tokenize(
    parts: Sequence[str], context: RequestContext, param: str, add_special: bool = True
) -> list[int]:
    """Token ids of texts, one after the other. What cannot fit is refused before it is tokenized."""
    tokenizer, n_ctx = context.engine.tokenizer, context.engine.n_ctx
    least = sum(map(tokenizer.min_tokens, parts))

    def encode() -> list[int]:
        tokens: list[int] = []
        for part in parts:
            tokens += tokenizer.encode(part, add_special=add_special, parse_special=True)
            if len(tokens) > 2 * n_ctx:  # the error need not give the exact number
                break
        return tokens

    tokens: list[int] = []
    if least < n_ctx:
        small = len(parts) < 16 and sum(map(len, parts)) <= INLINE_CHARS
        tokens = encode() if small else await context.in_thread(encode)
    if max(least, len(tokens)) > 2 * n_ctx or least >= n_ctx:
        n = max(least, len(tokens))
        raise _too_long(n, context.engine, param, at_least=True)
    return tokens


def check_length(n: int, engine: Engine, param: str) -> None:
    """Refuse prompts that leave no room for a token."""
    if n >= engine.n_ctx:
        raise _too_long(n, engine, param)


def _too_long(n: int, engine: Engine, param: str, *, at_least: bool = False) -> ContextExceeded:
    trained = (engine.info or {}).get("n_ctx_train")
    message = str(ContextOverflowError(n, engine.n_ctx, at_least=at_least, n_ctx_train=trained))
    return ContextExceeded(message, param, n, engine.n_ctx)
