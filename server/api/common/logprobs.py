"""Tokens and their log-probabilities in the two shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.types import Token
    from server.generation.output_processor import Shown

FLOOR = -9999.0  # JSON has no infinities; the official API gives this number, too
_MAX_NAMES = 1 << 16


class TokenNames:
    """Texts and bytes of token ids, remembered per model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str | None, str, bytes]] = {}

    def _look(self, id: int) -> tuple[str | None, str, bytes]:
        found = self._known.get(id)
        if found is None:
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
            found = (text, escaped, data)
            if len(self._known) < _MAX_NAMES:
                self._known[id] = found
        return found

    def text(self, id: int) -> str:
        """For completions: parts of characters as bytes:\\xe2\\x80."""
        text, escaped, _ = self._look(id)
        return f"bytes:{escaped}" if text is None else text

    def entry(self, id: int, logprob: float | None) -> dict[str, Any]:
        """For chat."""
        text, escaped, data = self._look(id)
        return {"token": escaped if text is None else text, "logprob": number(logprob), "bytes": list(data)}


def number(logprob: float | None) -> float | None:
    return logprob if logprob is None or logprob > FLOOR else FLOOR


def _named(names: TokenNames, token: Token) -> dict[str, float | None] | None:
    """The likeliest by their texts. Null where nothing was predicted: at the beginning of a prompt."""
    if token.logprob is None:
        return None
    return {names.text(id): number(p) for id, p in token.top or ()}


def completion_logprobs(names: TokenNames, shown: Sequence[Shown], top: int) -> dict[str, Any]:
    """`logprobs` of a choice of /v1/completions."""
    return {
        "tokens": [names.text(token.id) for token, _ in shown],
        "token_logprobs": [number(token.logprob) for token, _ in shown],
        "top_logprobs": [_named(names, token) for token, _ in shown] if top else None,
        "text_offset": [start for _, start in shown],
    }


def chat_logprobs(names: TokenNames, shown: Sequence[Shown]) -> dict[str, Any]:
    """`logprobs` of a choice of /v1/chat/completions."""
    content = []
    for token, _ in shown:
        entry = names.entry(token.id, token.logprob)
        entry["top_logprobs"] = [names.entry(id, p) for id, p in token.top or ()]
        content.append(entry)
    return {"content": content, "refusal": None}
