"""Kinds `gpt2` and `gemma4`: merges by rank within words, on Hugging Face `tokenizers`."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from operator import methodcaller

from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline

from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import GGUFFile, printable
from engine.tokenizer.base import Tokenizer
from engine.tokenizer.pretokenizers import DEFAULT, PRE_TOKENIZERS, PreTokenizer
from engine.tokenizer.special import Fragment
from engine.tokenizer.vocab import TokenType, Vocabulary
from engine.tokenizer.words import SPACE

log = logging.getLogger(__name__)

# Its threads, one per core, would compete with the engine's, and it complains on stderr when a process that
# used them forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_NEVER_TEXT = frozenset((TokenType.UNKNOWN, TokenType.CONTROL))
_DIGITS_AT_ONCE = 300  # a multiple of three


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printables = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in printables)
    return {chr(b): b for b in printables} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_ALPHABET = _byte_alphabet()


class BPETokenizer(Tokenizer):
    """BPE over bytes, or over characters with byte fallback. pre: None: the one that the file names."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary, pre: PreTokenizer | None = None) -> None:
        pre = pre or _pre_tokenizer(vocabulary)
        super().__init__(gguf, vocabulary, add_bos=pre.add_bos, add_eos=False)
        if pre.newlines and self.bos_id is not None:
            self.add_bos = True  # early conversions of Gemma 4 say the opposite
        self._pre = pre
        self._pipeline = Pipeline(_model(gguf, vocabulary, pre))
        if pre.nfc:
            self._max_chars *= 4  # composed from as many
        if not pre.byte_level:
            self._pipeline.normalizer = normalizers.Replace(" ", SPACE)
        self._pipeline.pre_tokenizer = splitter(pre)
        self._long_numbers = None
        if pre.digits:
            long = Regex(f"{pre.digits}{{{_DIGITS_AT_ONCE + 1},}}")
            self._long_numbers = pre_tokenizers.Split(long, "isolated")

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        if self._pre.nfc:
            fragments = [f if isinstance(f, int) or f.isascii() else _composed(f) for f in fragments]
        if self._pre.newlines:
            fragments = list(self._newline_tokens(fragments))
        if self._long_numbers:
            fragments = list(self._cut_numbers(fragments))
        texts = [fragment for fragment in fragments if isinstance(fragment, str)]
        # encode_batch_fast: without offsets, and without the interpreter lock.
        encoded = iter(self._pipeline.encode_batch_fast(texts, add_special_tokens=False) if texts else ())
        ids: list[int] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                ids.extend(next(encoded).ids)
        return ids

    def _newline_tokens(self, fragments: list[Fragment]) -> Iterator[Fragment]:
        for fragment in fragments:
            if isinstance(fragment, int):
                yield fragment
                continue
            for part in re.findall(r"\n+|[^\n]+", fragment):
                token = self.vocabulary.ids.get(part) if part[0] == "\n" else None
                yield part if token is None else token

    def _cut_numbers(self, fragments: list[Fragment]) -> Iterator[Fragment]:
        """Numbers of absurd length in pieces of whole groups, from the right. See `PreTokenizer.digits`."""
        for fragment in fragments:
            if isinstance(fragment, int) or self._long_numbers is None:
                yield fragment
                continue
            for part, _ in self._long_numbers.pre_tokenize_str(fragment):
                if len(part) <= _DIGITS_AT_ONCE or not all(unicodedata.category(c)[0] == "N" for c in part):
                    yield part
                    continue
                first = len(part) % _DIGITS_AT_ONCE
                if first:
                    yield part[:first]
                for start in range(first, len(part), _DIGITS_AT_ONCE):
                    yield part[start : start + _DIGITS_AT_ONCE]

    def _normal_bytes(self, piece: str) -> bytes:
        if not self._pre.byte_level:
            return piece.replace(SPACE, " ").encode()
        try:
            return bytes([BYTE_ALPHABET[c] for c in piece])
        except KeyError:  # not in the alphabet: an added token, spelled as it is
            return piece.encode()


# Text in a language has a handful of marks on a letter. Sorting them, part of composing, is quadratic.
_TOO_MANY_MARKS = pre_tokenizers.Split(Regex(r"\p{M}{100,}"), "isolated")


def _composed(text: str) -> str:
    """The text in NFC, unless a character has absurdly many marks."""
    parts = (part for part, _ in _TOO_MANY_MARKS.pre_tokenize_str(text))
    return "".join([part if _is_marks(part) else unicodedata.normalize("NFC", part) for part in parts])


def _is_marks(part: str) -> bool:
    return len(part) >= 100 and all(unicodedata.category(c)[0] == "M" for c in part)


def splitter(pre: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    """Splits text into words, spelled in the vocabulary's alphabet."""
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns
    ]
    if pre.byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def _pre_tokenizer(vocabulary: Vocabulary) -> PreTokenizer:
    name = "gemma4" if vocabulary.kind == "gemma4" else vocabulary.pre
    if not name:
        log.warning(
            "%s: the file does not state how words are split (no tokenizer.ggml.pre); the default is used, "
            "and results may be worse. Convert the model again with a current converter.",
            printable(vocabulary.path),
        )
        return DEFAULT
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"{printable(vocabulary.path)}: the pre-tokenizer '{printable(name)}' is not supported; "
            f"supported are {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    return PRE_TOKENIZERS[name]


def _model(gguf: GGUFFile, vocabulary: Vocabulary, pre: PreTokenizer) -> models.BPE:
    texts = gguf.get_strs("tokenizer.ggml.merges", None, None)
    if texts is None:
        gguf.fail("has no merges (tokenizer.ggml.merges), which its tokenizer needs")
    types = vocabulary.types
    # Control tokens are not in reach of plain text, whatever the merges say.
    pieces = {piece: i for piece, i in vocabulary.ids.items() if types[i] not in _NEVER_TEXT}
    # Merges that occur twice count where they come first; those of unknown pieces (tokenizers panics at them)
    # do not count.
    unique = texts if len(set(texts)) == len(texts) else list(dict.fromkeys(texts))
    merges = [(a, b) for a, _, b in map(_AT_SPACE, unique) if a in pieces and b in pieces and a + b in pieces]
    if len(merges) < len(texts):
        pairs = map(_pair, unique)
        merges = [(a, b) for a, b in pairs if a in pieces and b in pieces and a + b in pieces]
        if len(merges) < len(texts):
            log.warning(
                "%s: left out %d of %d merges, which occur twice or name unknown pieces",
                printable(gguf.path),
                len(texts) - len(merges),
                len(texts),
            )
    try:
        return models.BPE(pieces, merges, ignore_merges=pre.ignore_merges, byte_fallback=not pre.byte_level)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelError(f"{printable(gguf.path)}: the vocabulary cannot be used: {error}") from error


_AT_SPACE = methodcaller("partition", " ")


def _pair(text: str) -> tuple[str, str]:
    """A merge, written as two pieces around a space. The first piece may start with one."""
    left, _, right = text[1:].partition(" ")
    return text[:1] + left, right
