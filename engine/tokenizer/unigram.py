"""Kind `t5`: SentencePiece's Unigram (Kudo 2018, arXiv 1804.10959), the likeliest pieces, by Hugging Face's
implementation. XLM-RoBERTa and its kin have it.
"""

from __future__ import annotations

import re

from tokenizers import models, normalizers

from engine.errors import ModelError
from engine.gguf import GGUFFile, printable
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.special import Fragment
from engine.tokenizer.vocab import TokenType, Vocabulary

SPACE = "▁"
_TEXT = frozenset((TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED))
_UNSPELLED = "\ufdd0"  # begins what no text holds, in place of pieces that text is never read as
_LONGEST_REMEMBERED = 64
_MOST_REMEMBERED = 1 << 16


class UnigramTokenizer(Tokenizer):
    """Text is normalised by the file's own map of characters, cut at spaces, and then into pieces."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary) -> None:
        super().__init__(gguf, vocabulary, add_bos=False, add_eos=True)
        if self.unk_id is None or vocabulary.scores is None:
            raise ModelError(
                f"{printable(gguf.path)}: a vocabulary of kind t5 needs scores and an unknown token"
            )
        self.separates = gguf.get_bool("tokenizer.ggml.add_sep_token", True)
        self.add_space_prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix", True)
        self._squeeze = gguf.get_bool("tokenizer.ggml.remove_extra_whitespaces", False)
        self._shortens = True  # what is unknown is one token, however long
        types = vocabulary.types
        pieces = [
            piece if types[i] in _TEXT and vocabulary.ids.get(piece) == i else f"{_UNSPELLED}{i}"
            for i, piece in enumerate(vocabulary.pieces)
        ]
        across = any(SPACE in piece.lstrip(SPACE) for piece in pieces)
        self._words = None if across else re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._known: dict[str, tuple[int, ...]] = {}
        scores = zip(pieces, vocabulary.scores, strict=True)
        self._model = models.Unigram(list(scores), unk_id=self.unk_id, byte_fallback=False)
        self._normalizer = _map_of_characters(gguf)

    @classmethod
    def _build(cls, gguf: GGUFFile, vocabulary: Vocabulary) -> UnigramTokenizer:
        return cls(gguf, vocabulary)

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        ids: list[int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
                continue
            text = _guarded(self._normalizer, fragment) if self._normalizer else fragment
            if self._squeeze:
                text = re.sub(" {2,}", " ", text).strip(" ")
            if text:
                prefix = SPACE if self.add_space_prefix else ""
                self._encode_text(prefix + text.replace(" ", SPACE).replace(_UNSPELLED, "\ufffd"), ids)
        return ids

    def _encode_text(self, text: str, ids: list[int]) -> None:
        if self._words is None:
            ids.extend(token.id for token in self._model.tokenize(text))
            return
        known = self._known
        for word in self._words.findall(text):
            tokens = known.get(word)
            if tokens is None:
                tokens = tuple(token.id for token in self._model.tokenize(word))
                if len(word) <= _LONGEST_REMEMBERED:
                    if len(known) >= _MOST_REMEMBERED:
                        known.clear()
                    known[word] = tokens
            ids.extend(tokens)

    def _normal_bytes(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()


def _map_of_characters(gguf: GGUFFile) -> normalizers.Normalizer | None:
    """What SentencePiece has compiled into the file, or None. ModelError if it is no such map."""
    values = gguf.get_ints("tokenizer.ggml.precompiled_charsmap", None, None)
    if not values:
        return None
    try:
        normalizer = normalizers.Precompiled(bytes(value & 0xFF for value in values))
        normalizer.normalize_str("".join(map(chr, range(0x20, 0xD800))))
    except BaseException as error:  # also what stands for a panic in its Rust code
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError(f"{printable(gguf.path)}: tokenizer.ggml.precompiled_charsmap is damaged") from error
    return normalizer


def _guarded(normalizer: normalizers.Normalizer, text: str) -> str:
    try:
        normalized: str = normalizer.normalize_str(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError("the vocabulary's map of characters is damaged") from error
    return normalized
