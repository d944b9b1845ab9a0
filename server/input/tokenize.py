"""From texts and messages to token ids: chat template, tokenizer, and the bounds of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import ContextOverflowError
from server.api.common.generation_fields import is_token
from server.api.common.logprobs import TokenNames
from server.chat.chat_format import ChatFormats, load_chat_formats
from server.chat.template.special_tokens import special_token_pattern
from server.dependencies import Engine, ModelFacts, State
from server.errors import bad_request, context_exceeded

MAX_WARNINGS = 32
INLINE_CHARS = 2048  # a text up to here is tokenised in the event loop: a thread would take longer


async def facts_of(engine: Engine, state: State) -> ModelFacts:
    """Worked out at the first request, since it needs the tokenizer."""
    known = state.facts.get(engine.name)
    if known is None:
        known = await state.in_thread(_find_facts, engine.tokenizer, state.chat_template)
        state.facts[engine.name] = known
    return known


def _find_facts(tokenizer: Any, source: str | None) -> ModelFacts:
    chat = load_chat_formats(tokenizer, source)
    template = chat.plain.template if isinstance(chat, ChatFormats) else chat
    specials = {tokenizer.token_text(i) for i in range(tokenizer.n_vocab) if tokenizer.is_special(i)}
    return ModelFacts(template, chat, TokenNames(tokenizer), special_token_pattern(specials))


def check_generates(engine: Engine) -> None:
    """Refuse models that only make embeddings."""
    if (engine.info or {}).get("generates") is False:
        message = f"model: '{engine.name}' makes embeddings and cannot generate text; use /v1/embeddings"
        raise bad_request(message, "model", "cannot_generate")


async def prompt_tokens(prompt: str | Sequence[int], engine: Engine, state: State) -> list[int]:
    """The prompt of a completion."""
    check_generates(engine)
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        tokens = await tokenise([prompt], engine, state, "prompt")
    else:
        check_length(len(prompt), engine, "prompt")
        tokens = list(prompt)
        wrong = next((id for id in tokens if not is_token(id) or id >= tokenizer.n_vocab), None)
        if wrong is not None:
            message = f"prompt: must hold token ids from 0 to {tokenizer.n_vocab - 1} and nothing else"
            raise bad_request(message, "prompt", "invalid_value")
    if not tokens:  # something must be computed: what a text begins with
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise bad_request("prompt: is empty", "prompt", "invalid_value")
        tokens = [start]
    check_length(len(tokens), engine, "prompt")
    return tokens


async def tokenise(
    parts: Sequence[str], engine: Engine, state: State, param: str, add_special: bool = True
) -> list[int]:
    """Texts → ids, one after the other. What cannot fit in any case is refused before it is tokenised."""
    tokenizer, n_ctx = engine.tokenizer, engine.n_ctx
    least = sum(map(tokenizer.min_tokens, parts))

    def encode() -> list[int]:
        tokens: list[int] = []
        for part in parts:
            tokens += tokenizer.encode(part, add_special=add_special, parse_special=True)
            if len(tokens) > 2 * n_ctx:  # no need to know by how much
                break
        return tokens

    tokens: list[int] = []
    if least < n_ctx:
        small = len(parts) < 16 and sum(map(len, parts)) <= INLINE_CHARS
        tokens = encode() if small else await state.in_thread(encode)
    if max(least, len(tokens)) > 2 * n_ctx or least >= n_ctx:
        n = max(least, len(tokens))
        raise context_exceeded(str(ContextOverflowError(n, n_ctx, at_least=True)), param, n, n_ctx)
    return tokens


def check_length(n: int, engine: Engine, param: str) -> None:
    if n >= engine.n_ctx:
        raise context_exceeded(str(ContextOverflowError(n, engine.n_ctx)), param, n, engine.n_ctx)


def echoed(prompt: str | Sequence[int], engine: Engine) -> str:
    return prompt if isinstance(prompt, str) else engine.tokenizer.decode(prompt)
