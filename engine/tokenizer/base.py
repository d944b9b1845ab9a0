"""What all kinds of tokenizers share: special tokens, token bytes, decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from engine.errors import ConfigError, UnsupportedModelError
from engine.gguf import GGUFFile, printable
from engine.tokenizer.special import Fragment, SpecialTokens
from engine.tokenizer.vocab import TokenType, Vocabulary

_LONG_TEXT = 1 << 18
_SEPARATING = ("jina-v1-en", "jina-v2-code", "roberta-bpe")
_SLICE = 1 << 15
_MARGIN = 64  # tokens that cutting a text in two may add


class Tokenizer(ABC):
    """Text to tokens and back, as in training. Create one with `from_gguf` or `load_tokenizer`.

    Safe to use from several threads. `bos_id`, `eos_id`, … are None if the vocabulary has no such token.
    """

    kinds: ClassVar[dict[str, Callable[[GGUFFile, Vocabulary], Tokenizer]]] = {}  # by tokenizer.ggml.model

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary, *, add_bos: bool, add_eos: bool) -> None:
        self.vocabulary = vocabulary
        self.n_vocab = len(vocabulary.pieces)
        special = vocabulary.special
        self.bos_id, self.eos_id, self.unk_id = special.get("bos"), special.get("eos"), special.get("unk")
        self.eot_id, self.eom_id = special.get("eot"), special.get("eom")
        self.sep_id, self.pad_id, self.mask_id = special.get("sep"), special.get("pad"), special.get("mask")
        self.fim_pre_id, self.fim_suf_id = special.get("fim_pre"), special.get("fim_suf")
        self.fim_mid_id, self.fim_pad_id = special.get("fim_mid"), special.get("fim_pad")
        self.fim_rep_id, self.fim_sep_id = special.get("fim_rep"), special.get("fim_sep")
        self.eog_ids = vocabulary.eog_ids
        add_bos = gguf.get_bool("tokenizer.ggml.add_bos_token", add_bos)
        add_eos = gguf.get_bool("tokenizer.ggml.add_eos_token", add_eos)
        self.add_bos = add_bos and self.bos_id is not None
        self.add_eos = add_eos and self.eos_id is not None
        self.add_sep = False
        # Whether a separator stands between two sentences besides what ends the first.
        self.separates = gguf.get_bool("tokenizer.ggml.add_sep_token", vocabulary.pre in _SEPARATING)
        self.chat_template: str | None = gguf.get_str("tokenizer.chat_template", None)
        self.chat_template_tool_use: str | None = gguf.get_str("tokenizer.chat_template.tool_use", None)
        self.add_space_prefix = False
        self._specials = SpecialTokens(vocabulary)
        self._bytes: list[bytes | None] = [None] * self.n_vocab
        self._max_chars = max(map(len, vocabulary.pieces))  # that one token can stand for
        self._shortens = bool(vocabulary.lstrip or vocabulary.rstrip)

    @staticmethod
    def from_gguf(gguf: GGUFFile) -> Tokenizer:
        """The tokenizer that the file describes. Raises ModelError, also for unsupported kinds."""
        kind = gguf.get_str("tokenizer.ggml.model")
        if kind not in Tokenizer.kinds:
            raise UnsupportedModelError(
                f"{printable(gguf.path)}: the tokenizer kind '{printable(kind)}' is not supported; "
                f"supported are {', '.join(sorted(Tokenizer.kinds))}"
            )
        return Tokenizer.kinds[kind](gguf, Vocabulary.from_gguf(gguf))

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Tokens of `text`.

        add_special: put the tokens before and after that the model expects (beginning of sequence, …).
        parse_special: control tokens written out in the text become those tokens; leave it off for text that
        others wrote. Unpaired surrogates, which no tokenizer can express, become U+FFFD.
        """
        if not text.isascii():
            text = _without_surrogates(text)
        ids = self._encode(self._specials.partition(text, parse_special))
        if add_special and self.add_bos and self.bos_id is not None:
            ids.insert(0, self.bos_id)
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        if add_special and self.add_sep and self.sep_id is not None:
            ids.append(self.sep_id)
        return ids

    def encode_pair(self, first: str, second: str) -> tuple[list[int], int]:
        """Tokens of a pair of texts in the format of cross-encoders, and where the second begins.

        Special tokens written out in a text are text.
        """
        ends = self.encode("")
        n_before = int(self.add_bos and self.bos_id is not None)
        before, after = ends[:n_before], ends[n_before:]
        ids = before + self.encode(first, add_special=False) + after
        if self.separates and not self.add_sep and self.sep_id is not None:
            ids.append(self.sep_id)
        return ids + self.encode(second, add_special=False) + after, len(ids)

    def min_tokens(self, text: str, enough: int | None = None) -> int:
        """About the fewest tokens that `text` can become; at most what `encode` would return.

        A number from the length alone, in no time. With `enough` a long text is then encoded slice by slice
        until that many are certain: what is far too long for a session costs little time and memory, whereas
        encoding all of it could take hundreds of bytes for each character.
        """
        least = 0 if self._shortens else len(text) // self._max_chars
        if enough is None or least >= enough or len(text) <= _LONG_TEXT:
            return least
        counted = 0
        for start in range(0, len(text), _SLICE):
            ids = self.encode(text[start : start + _SLICE], add_special=False, parse_special=True)
            counted += max(0, len(ids) - _MARGIN)
            if counted >= enough:
                break
        return max(least, counted)

    @abstractmethod
    def _encode(self, fragments: list[Fragment]) -> list[int]:
        """Tokens of all fragments in order."""

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of complete sequences. Invalid UTF-8 becomes U+FFFD. For streams use `Detokenizer`."""
        ids = list(ids)
        data = b"".join([self.token_bytes(i) for i in ids])
        if self.add_space_prefix and data[:1] == b" ":
            data = data[1:]  # encode() put it there
        if not skip_special:
            data = b"".join([self.token_bytes(i, special=True) for i in ids])
        return data.decode("utf-8", "replace")

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token contributes to text: none for a control token, unless `special` is set."""
        self._check(token)
        if special and self.vocabulary.is_special(token):
            return self.vocabulary.pieces[token].encode()
        data = self._bytes[token]
        if data is None:
            data = self._bytes[token] = self._contribution(token)
        return data

    def token_text(self, token: int) -> str:
        """The piece as the vocabulary spells it (`Ġhello`, `▁hello`, `<0x0A>`)."""
        self._check(token)
        return self.vocabulary.pieces[token]

    def is_special(self, token: int) -> bool:
        """Whether a token is part of the format rather than of the text."""
        self._check(token)
        return self.vocabulary.is_special(token)

    def _check(self, token: int) -> None:
        if not 0 <= token < self.n_vocab:
            raise ConfigError(f"token {token} is not in the vocabulary; ids go from 0 to {self.n_vocab - 1}")

    def _contribution(self, token: int) -> bytes:
        kind, piece = self.vocabulary.types[token], self.vocabulary.pieces[token]
        if kind == TokenType.USER_DEFINED:
            return piece.encode()
        if kind == TokenType.NORMAL:
            return self._normal_bytes(piece)
        if kind == TokenType.BYTE:
            value = byte_of(piece)
            return piece.encode() if value is None else bytes((value,))
        return b""

    @abstractmethod
    def _normal_bytes(self, piece: str) -> bytes:
        """The bytes that a piece of ordinary text stands for."""


def byte_of(piece: str) -> int | None:
    """The value of a byte token, `<0x0A>`, or None."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return int(piece[3:5], 16)
        except ValueError:
            return None
    return None


def _without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced. (JSON can carry both.)"""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
