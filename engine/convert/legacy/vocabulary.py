"""Vocabularies of pre-GGUF files: SentencePiece pieces with scores, or the bytes of byte-level BPE tokens.

The latter come without merges. Trainers number tokens in the order of their merges, so each merge can be
reconstructed: encoding a token with all earlier merges leaves exactly two pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import gguf

from engine.convert.legacy.file import LegacyFile
from engine.convert.legacy.formats import FORMATS
from engine.errors import UnsupportedModelError
from engine.tokenizer.bpe import BYTE_ALPHABET

_SPELLED = {byte: character for character, byte in BYTE_ALPHABET.items()}
_CONTROL = re.compile(rb"<\|[^|]*\|>|</?s>|<pad>|<unk>|>>[A-Z_]+<<")
_N_BYTES = 256
_FIRST_PIECE = 259  # of LLaMA: unknown, begin, end, and the bytes come before
_ENDS = (b"<|endoftext|>", b"</s>")
MAX_ADDED_SHARE = 0.02  # of tokens that no merge explains; beyond it, tokens are not in the order of merges


def write(
    writer: gguf.GGUFWriter, file: LegacyFile, n_rows: int, report: Callable[[float], None]
) -> list[str]:
    """All `tokenizer.*` keys, for an embedding of `n_rows`; returns remarks."""
    pre = FORMATS[file.architecture].pre
    if pre is None:
        return _write_pieces(writer, file, n_rows)
    return _write_bytes(writer, file, n_rows, pre, report)


def _write_pieces(writer: gguf.GGUFWriter, file: LegacyFile, n_rows: int) -> list[str]:
    kind = gguf.TokenType
    pieces: list[str] = []
    types: list[int] = []
    for i, raw in enumerate(file.tokens):
        if i < 3:
            pieces.append(("<unk>", "<s>", "</s>")[i])
            types.append(kind.UNKNOWN if i == 0 else kind.CONTROL)
        elif i < _FIRST_PIECE and len(raw) == 1:
            pieces.append(f"<0x{raw[0]:02X}>")
            types.append(kind.BYTE)
        else:
            pieces.append(raw.decode("utf-8", "replace").replace(" ", "\u2581"))
            types.append(kind.NORMAL if raw else kind.UNUSED)
    remarks = []
    scores = file.scores
    if scores is None:
        scores = [0.0 if i < _FIRST_PIECE else float(_FIRST_PIECE - i) for i in range(len(pieces))]
        remarks.append(
            "a ggml file has no token scores; they were derived from the order of the tokens, as in LLaMA"
        )
    pieces, types = _padded(pieces, types, n_rows)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([*scores, *[0.0] * (n_rows - len(scores))])
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return remarks


def _write_bytes(
    writer: gguf.GGUFWriter, file: LegacyFile, n_rows: int, pre: str, report: Callable[[float], None]
) -> list[str]:
    kind = gguf.TokenType
    merges, added = merges_of(file.tokens, report)
    if len({*range(_N_BYTES)} & {t[0] for t in file.tokens if len(t) == 1}) < _N_BYTES:
        raise _lossy(file, "lacks tokens for single bytes")
    unreadable = (
        "has texts that were replaced by U+FFFD"
        if sum(b"\xef\xbf\xbd" in t for t in file.tokens) > 64
        else ""
    )
    if unreadable or len(added) > MAX_ADDED_SHARE * len(file.tokens) + 64:
        raise _lossy(file, unreadable or f"has {len(added)} tokens that no merge explains")
    pieces: list[str] = []
    types: list[int] = []
    for i, raw in enumerate(file.tokens):
        if i in added:
            pieces.append(raw.decode("utf-8", "replace") or f"[EMPTY_{i}]")
            control = bool(_CONTROL.fullmatch(raw))
            types.append(kind.CONTROL if control else kind.USER_DEFINED if raw else kind.UNUSED)
        else:
            pieces.append("".join(_SPELLED[byte] for byte in raw))
            types.append(kind.NORMAL)
    pieces, types = _padded(pieces, types, n_rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(pieces)
    writer.add_token_merges(
        [" ".join("".join(_SPELLED[byte] for byte in part) for part in merge) for merge in merges]
    )
    writer.add_token_types(types)
    end = next((file.tokens.index(text) for text in _ENDS if text in file.tokens), None)
    if end is not None:
        writer.add_eos_token_id(end)
        writer.add_bos_token_id(file.tokens.index(b"<s>") if b"<s>" in file.tokens else end)
    return []


def _lossy(file: LegacyFile, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{file.label}: its vocabulary {why}, so text cannot be tokenized as in training; "
        "--vocab FOLDER takes the vocabulary of the model's Hugging Face folder"
    )


def _padded(pieces: list[str], types: list[int], n_rows: int) -> tuple[list[str], list[int]]:
    """Padded to the rows of the embedding, which are often rounded up for speed."""
    extra = range(len(pieces), n_rows)
    return [*pieces, *(f"[PAD{i}]" for i in extra)], [
        *map(int, types),
        *(int(gguf.TokenType.UNUSED) for _ in extra),
    ]


def merges_of(
    tokens: list[bytes], report: Callable[[float], None] = lambda done: None
) -> tuple[list[tuple[bytes, bytes]], set[int]]:
    """The merges of a byte-level BPE whose tokens are numbered in merge order, and the ids of added tokens.

    A token that was added after training (<|endoftext|>, runs of spaces) does not reduce to two pieces.
    """
    ranks: dict[tuple[bytes, bytes], int] = {}
    merges: list[tuple[bytes, bytes]] = []
    added: set[int] = set()
    seen: set[bytes] = set()
    for i, token in enumerate(tokens):
        if i % 1024 == 0:
            report(i / len(tokens))
        if token in seen or not token:
            added.add(i)
            continue
        if len(token) > 1:
            parts = _spell(token, ranks)
            if len(parts) != 2 or not seen.issuperset(parts):
                added.add(i)
                continue
            ranks[parts[0], parts[1]] = len(merges)
            merges.append((parts[0], parts[1]))
        seen.add(token)
    return merges, added


def _spell(token: bytes, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        best, at = min((ranks.get((a, b), 1 << 30), i) for i, (a, b) in enumerate(pairwise(parts)))
        if best == 1 << 30:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
