"""Kind `t5`: SentencePiece's Unigram (Kudo 2018, arXiv 1804.10959), the likeliest pieces, by Hugging Face's
implementation. XLM-RoBERTa and its kin have it.
"""

from __future__ import annotations

from tokenizers import models, normalizers

from engine.errors import ModelError
from engine.gguf import GGUFFile, printable
from engine.tokenizer.special import Fragment
from engine.tokenizer.vocab import TokenType, Vocabulary
from engine.tokenizer.words import SPACE, WordTokenizer

_TEXT = frozenset((TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED))
_UNSPELLED = "\ufdd0"  # begins what no text holds, in place of pieces that text is never read as


class UnigramTokenizer(WordTokenizer):
    """Text is normalised by the file's own character map, split at spaces, and then into pieces."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary) -> None:
        types = vocabulary.types
        pieces = [
            piece if types[i] in _TEXT and vocabulary.ids.get(piece) == i else f"{_UNSPELLED}{i}"
            for i, piece in enumerate(vocabulary.pieces)
        ]
        super().__init__(gguf, vocabulary, pieces, add_bos=False, add_eos=True)
        if self.unk_id is None or vocabulary.scores is None:
            raise ModelError(
                f"{printable(gguf.path)}: a vocabulary of kind t5 needs scores and an unknown token"
            )
        self.separates = gguf.get_bool("tokenizer.ggml.add_sep_token", True)
        self._shortens = True  # what is unknown is one token, however long
        scores = zip(pieces, vocabulary.scores, strict=True)
        self._model = models.Unigram(list(scores), unk_id=self.unk_id, byte_fallback=False)
        self._normalizer = _map_of_characters(gguf)

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        ids: list[int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
                continue
            text = _guarded(self._normalizer, fragment) if self._normalizer else fragment
            text = self._squeezed(text)
            if text:
                prefix = SPACE if self.add_space_prefix else ""
                ids += self._encode_text(prefix + text.replace(" ", SPACE).replace(_UNSPELLED, "\ufffd"))
        return ids

    def _encode_word(self, text: str) -> list[int]:
        return [token.id for token in self._model.tokenize(text)]


def _map_of_characters(gguf: GGUFFile) -> normalizers.Normalizer | None:
    """The character map that SentencePiece compiled into the file, or None.

    Raises ModelError if it is invalid.
    """
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
