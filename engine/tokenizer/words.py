"""What SentencePiece's kinds share: ▁ for spaces, and words that are encoded by themselves and remembered."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable

from engine.gguf import GGUFFile
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.vocab import Vocabulary

SPACE = "▁"
_LONGEST_REMEMBERED = 64  # characters
_MOST_REMEMBERED = 1 << 16


class WordTokenizer(Tokenizer):
    """Encodes text word by word, or as a whole where some of `pieces` reach over the border of a word."""

    def __init__(
        self, gguf: GGUFFile, vocabulary: Vocabulary, pieces: Iterable[str], *, add_bos: bool, add_eos: bool
    ) -> None:
        super().__init__(gguf, vocabulary, add_bos=add_bos, add_eos=add_eos)
        self.add_space_prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix", True)
        self._squeeze = gguf.get_bool("tokenizer.ggml.remove_extra_whitespaces", False)
        self._shortens = self._shortens or self._squeeze
        across = any(SPACE in piece.lstrip(SPACE) for piece in pieces)
        self._words = None if across else re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._remembered: dict[str, tuple[int, ...]] = {}

    def _squeezed(self, text: str) -> str:
        return re.sub(" {2,}", " ", text).strip(" ") if self._squeeze else text

    def _encode_text(self, text: str) -> list[int]:
        """Tokens of a text whose spaces are ▁."""
        if self._words is None:
            return self._encode_word(text)
        ids: list[int] = []
        remembered = self._remembered
        for word in self._words.findall(text):
            tokens = remembered.get(word)
            if tokens is None:
                tokens = tuple(self._encode_word(word))
                if len(word) <= _LONGEST_REMEMBERED:
                    if len(remembered) >= _MOST_REMEMBERED:
                        remembered.clear()
                    remembered[word] = tokens
            ids.extend(tokens)
        return ids

    @abstractmethod
    def _encode_word(self, text: str) -> list[int]:
        """Tokens of one word, or of a whole text."""

    def _normal_bytes(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()
