"""Sequence breakers of DRY: the token sequences that spell one of its texts in a model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 20  # of a sequence after its first token, as in llama.cpp
_END = 0xFF  # between the texts of tokens: in no UTF-8


class BreakerVocabulary(Protocol):
    """`engine.tokenizer.Tokenizer`."""

    @property
    def n_vocab(self) -> int: ...

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]: ...

    def token_bytes(self, token: int, *, special: bool = False) -> bytes: ...


class DryBreakers:
    """The token sequences that spell a text, found as in llama.cpp.

    A token that contains the whole text is one by itself; a token that ends with the text's beginning is one
    together with the tokens of the rest. Other spellings of the rest are not considered.
    """

    def __init__(self, vocabulary: BreakerVocabulary) -> None:
        self._vocabulary = vocabulary
        self._texts: NDArray[np.uint8] | None = None  # of all tokens, each with _END behind it
        self._ends: NDArray[np.int64] | None = None
        self.of_text = lru_cache(maxsize=64)(self._of_text)

    def sequences(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The sequences of all texts, without repetition."""
        return list(dict.fromkeys(sequence for text in texts for sequence in self.of_text(text)))

    def _of_text(self, text: str) -> list[tuple[int, ...]]:
        data = text.encode("utf-8", "replace")
        texts, ends = self._vocabulary_texts()
        # Places where the text may begin; the last one is behind the last token.
        places = np.flatnonzero(texts == data[0])
        rests: list[tuple[NDArray[np.int64], int]] = []
        for i in range(1, len(data)):
            following = texts[places + i]
            rests.append((np.searchsorted(ends, places[following == _END]), i))
            places = places[following == data[i]]
        alone = np.unique(np.searchsorted(ends, places)).tolist()
        sequences: list[tuple[int, ...]] = [(token,) for token in alone]
        holds_all = set(alone)
        for tokens, i in rests:
            heads = [token for token in np.unique(tokens).tolist() if token not in holds_all]
            if heads and (rest := _text_of(data[i:])):
                tail = self._vocabulary.encode(rest, add_special=False)[:MAX_TOKENS]
                sequences += [(token, *tail) for token in heads if tail]
        return sequences

    def _vocabulary_texts(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if self._texts is None or self._ends is None:
            vocabulary = self._vocabulary
            pieces = [vocabulary.token_bytes(token, special=True) for token in range(vocabulary.n_vocab)]
            self._ends = np.cumsum([len(piece) + 1 for piece in pieces]) - 1
            self._texts = np.frombuffer(b"".join(piece + bytes((_END,)) for piece in pieces), np.uint8)
        return self._texts, self._ends


def _text_of(data: bytes) -> str:
    """The token's text; empty if it begins inside a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""
