"""Kinds `gpt2` and `gemma4`: merges by rank within words, on Hugging Face `tokenizers`."""

from __future__ import annotations

import logging
import re
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

log = logging.getLogger(__name__)

SPACE = "▁"
_NEVER_TEXT = frozenset((TokenType.UNKNOWN, TokenType.CONTROL))
_DIGITS_AT_ONCE = 300  # a multiple of three


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printables = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in printables)
    return {chr(b): b for b in printables} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_ALPHABET = _byte_alphabet()


class BPETokenizer(Tokenizer):
    """BPE over bytes, or over characters with byte fallback."""

    def __init__(self, gguf: GGUFFile, vocabulary: Vocabulary, pre: PreTokenizer) -> None:
        super().__init__(gguf, vocabulary, add_bos=pre.add_bos, add_eos=False)
        if pre.newlines and self.bos_id is not None:
            self.add_bos = True  # early conversions of Gemma 4 say the opposite
        self._pre = pre
        self._pipeline = Pipeline(_model(gguf, vocabulary, pre))
        if pre.nfc:
            self._pipeline.normalizer = normalizers.NFC()
        elif not pre.byte_level:
            self._pipeline.normalizer = normalizers.Replace(" ", SPACE)
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
        if pre.byte_level:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        self._pipeline.pre_tokenizer = pre_tokenizers.Sequence(steps)

    @classmethod
    def _build(cls, gguf: GGUFFile, vocabulary: Vocabulary) -> BPETokenizer:
        return cls(gguf, vocabulary, _pre_tokenizer(vocabulary))

    def _encode(self, fragments: list[Fragment]) -> list[int]:
        if self._pre.newlines:
            fragments = list(self._newline_tokens(fragments))
        if self._pre.digits:
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
        """Long numbers in pieces of whole groups, counted from the right: the same groups in linear time."""
        for fragment in fragments:
            if isinstance(fragment, int):
                yield fragment
                continue
            start = 0
            for match in re.finditer(rf"\d{{{_DIGITS_AT_ONCE + 1},}}", fragment):
                cut = match.start() + (match.end() - match.start()) % _DIGITS_AT_ONCE
                while cut < match.end():
                    if cut > start:
                        yield fragment[start:cut]
                    start, cut = cut, cut + _DIGITS_AT_ONCE
            if start < len(fragment):
                yield fragment[start:]

    def _normal_bytes(self, piece: str) -> bytes:
        if not self._pre.byte_level:
            return piece.replace(SPACE, " ").encode()
        try:
            return bytes([BYTE_ALPHABET[c] for c in piece])
        except KeyError:  # not in the alphabet: an added token, spelled as it is
            return piece.encode()


def _pre_tokenizer(vocabulary: Vocabulary) -> PreTokenizer:
    name = "gemma4" if vocabulary.kind == "gemma4" else vocabulary.pre
    if name is None:
        log.warning(
            "%s: the file does not say how words are cut (no tokenizer.ggml.pre); the default is used, and "
            "results may be worse. Convert the model again with a current converter.",
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
    options = {"ignore_merges": pre.ignore_merges, "byte_fallback": not pre.byte_level}
    if len(set(texts)) == len(texts):
        try:
            return models.BPE(pieces, [(left, right) for left, _, right in map(_AT_SPACE, texts)], **options)
        except Exception as error:  # tokenizers raises nothing more precise
            log.debug("%s: %s", printable(gguf.path), error)
    # Merges that occur twice count where they come first; those of unknown pieces do not count.
    sound = [
        (left, right) for left, right in dict.fromkeys(map(_pair, texts))
        if left in pieces and right in pieces and left + right in pieces
    ]
    log.warning(
        "%s: %d of %d merges occur twice or name unknown pieces",
        printable(gguf.path), len(texts) - len(sound), len(texts),
    )
    try:
        return models.BPE(pieces, sound, **options)
    except Exception as error:
        raise ModelError(f"{printable(gguf.path)}: the vocabulary cannot be used: {error}") from error


_AT_SPACE = methodcaller("partition", " ")


def _pair(text: str) -> tuple[str, str]:
    """A merge, written as two pieces around a space. The first piece may start with one."""
    left, _, right = text[1:].partition(" ")
    return text[:1] + left, right


Tokenizer.kinds["gpt2"] = BPETokenizer
Tokenizer.kinds["gemma4"] = BPETokenizer
