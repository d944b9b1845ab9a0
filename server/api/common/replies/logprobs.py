"""Tokens and their log-probabilities in the two formats of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from engine.types import Token
from server.chat.output import ShownToken
from server.generation.job import ScoredPrompt

FLOOR = -9999.0  # JSON has no infinities; the official API gives this number, too
_MAX_NAMES = 1 << 16


class TokenTexts:
    """Texts and bytes of a model's token ids, cached."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str | None, str, bytes]] = {}

    def _text_of(self, id: int) -> tuple[str | None, str, bytes]:
        known = self._known.get(id)
        if known is None:
            data: bytes = self._tokenizer.token_bytes(id)
            name: str = self._tokenizer.token_text(id)
            text: str | None = name
            if data:
                try:
                    text = data.decode()
                except UnicodeDecodeError:  # a part of a character
                    text = None
            else:
                data = name.encode("utf-8", "replace")  # a control token: shown, though no part of the text
            escaped = "".join(f"\\x{byte:02x}" for byte in data)
            known = (text, escaped, data)
            if len(self._known) < _MAX_NAMES:
                self._known[id] = known
        return known

    def text(self, id: int) -> str:
        r"""The text of a token in completions, where partial characters are written as bytes:\xe2\x80."""
        text, escaped, _ = self._text_of(id)
        return f"bytes:{escaped}" if text is None else text

    def bytes(self, id: int) -> bytes:
        """The bytes of a token; for a control token, those of its name."""
        return self._text_of(id)[2]

    def entry(self, id: int, logprob: float | None) -> dict[str, Any]:
        r"""A token's entry in chat, where partial characters are written as \xe2\x80."""
        text, escaped, data = self._text_of(id)
        return {"token": escaped if text is None else text, "logprob": number(logprob), "bytes": list(data)}


@cache
def token_texts(tokenizer: Any) -> TokenTexts:
    """The `TokenTexts` of a tokenizer; cached, one per model."""
    return TokenTexts(tokenizer)


def number(logprob: float | None) -> float | None:
    return logprob if logprob is None or logprob > FLOOR else FLOOR


def _likeliest(texts: TokenTexts, token: Token, top: int) -> dict[str, float | None] | None:
    """The most likely tokens by their texts, including the token itself, as in OpenAI's API.

    Null where nothing was predicted, at the beginning of a prompt.
    """
    if token.logprob is None:
        return None
    likeliest = {texts.text(id): number(p) for id, p in (token.top or ())[:top]}
    likeliest.setdefault(texts.text(token.id), number(token.logprob))
    return likeliest


def completion_logprobs(texts: TokenTexts, shown: Sequence[ShownToken], top: int) -> dict[str, Any]:
    """The field `logprobs` of a choice of /v1/completions."""
    return {
        "tokens": [texts.text(token.id) for token, _ in shown],
        "token_logprobs": [number(token.logprob) for token, _ in shown],
        "top_logprobs": [_likeliest(texts, token, top) for token, _ in shown] if top else None,
        "text_offset": [start for _, start in shown],
    }


def chat_logprobs(texts: TokenTexts, shown: Sequence[ShownToken]) -> dict[str, Any]:
    """The field `logprobs` of a choice of /v1/chat/completions."""
    content = []
    for token, _ in shown:
        entry = texts.entry(token.id, token.logprob)
        entry["top_logprobs"] = [texts.entry(id, p) for id, p in token.top or ()]
        content.append(entry)
    return {"content": content, "refusal": None}


def prompt_logprobs(texts: TokenTexts, prompt: ScoredPrompt, top: int) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each token, itself and the most likely alternatives, by token id.

    Null where nothing was predicted, at the beginning of the prompt.
    """
    return [
        None if rank is None else _by_id(texts, token, rank, top)
        for (token, _), rank in zip(prompt.tokens, prompt.ranks, strict=True)
    ]


def _by_id(texts: TokenTexts, token: Token, rank: int, top: int) -> dict[str, Any]:
    ranked = [(token.id, token.logprob, rank)]
    ranked += [(id, p, place) for place, (id, p) in enumerate((token.top or ())[:top], 1) if id != token.id]
    return {
        str(id): {"logprob": number(p), "rank": place, "decoded_token": texts.text(id)}
        for id, p, place in ranked
    }
