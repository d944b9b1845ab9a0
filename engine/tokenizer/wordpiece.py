"""Kind `bert`: WordPiece (Schuster and Nakajima 2012), longest match first, by Hugging Face's implementation.

The file spells pieces that begin a word with ▁ in front and those that go on with one without; Hugging Face
has it the other way round, with ## in front of the latter.
"""

from __future__ import annotations

from tokenizers import models, normalizers, pre_tokenizers

from engine.errors import ModelError
from engine.gguf import GGUFFile, printable
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.special import Fragment
from engine.tokenizer.vocab import TokenType, Vocabulary
from engine.tokenizer.words import SPACE

_CONTINUES = "##"
_LONGEST_WORD = 100  # characters; a longer one is unknown, as in BERT's own code


class WordPieceTokenizer(Tokenizer):
    """BERT's: text is cleaned, lower-cased if required, split at spaces and punctuation, then into pieces."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary) -> None:
        super().__init__(gguf, vocabulary, add_bos=True, add_eos=False)
        if self.unk_id is None:
            raise ModelError(f"{printable(gguf.path)}: a vocabulary of kind bert needs an unknown token")
        self.add_sep = gguf.get_bool("tokenizer.ggml.add_sep_token", True)
        self._shortens = True  # a word of any length may be unknown, and control characters go
        self.add_space_prefix = True  # decoded text begins with the space of its first word
        lowercase = gguf.get_bool("tokenizer.ggml.normalizer.lowercase", True)
        self._normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=gguf.get_bool("tokenizer.ggml.normalizer.strip_accents", lowercase),
            lowercase=lowercase,
        )
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        pieces = {
            (piece.removeprefix(SPACE) if piece.startswith(SPACE) else _CONTINUES + piece): i
            for piece, i in vocabulary.ids.items()
            if vocabulary.types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED)
        }
        unknown = vocabulary.pieces[self.unk_id]
        self._model = models.WordPiece(
            vocab=pieces | {unknown: self.unk_id}, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD
        )

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        ids: list[int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
                continue
            for word, _ in self._pre_tokenizer.pre_tokenize_str(self._normalizer.normalize_str(fragment)):
                ids.extend(token.id for token in self._model.tokenize(word))
        return ids

    def _normal_bytes(self, piece: str) -> bytes:
        return (" " + piece[1:] if piece.startswith(SPACE) else piece).encode()
