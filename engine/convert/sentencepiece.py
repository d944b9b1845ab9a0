"""Reads SentencePiece's tokenizer.model, a protobuf message of which six fields are needed.

The sentencepiece library does not expose how text is normalized, and protobuf would be one more dependency;
the wire format (protobuf.dev/programming-guides/encoding) of these fields is simpler than either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import ModelError, UnsupportedModelError
from engine.gguf import printable

BPE = 2  # trainer_spec.model_type
_KINDS = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}
NORMAL, UNKNOWN = 1, 2  # types of pieces; all of them are numbered as in GGUF
T = TypeVar("T", int, float, bytes)


@dataclass
class SentencePiece:
    """pieces: (text, score, type) by id."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    model_type: int = 1
    charsmap: bytes = b""
    adds_space: bool = True
    squeezes: bool = True


def read(path: Path) -> SentencePiece:
    """Raises ModelError for a damaged file, UnsupportedModelError if it is not BPE or normalizes text."""
    model = SentencePiece()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                model.pieces.append(_piece(value))
            elif number == 2:
                model.model_type = _value(dict(_fields(value)), 3, 1)
            elif number == 3:
                normalizer = dict(_fields(value))
                model.charsmap = _value(normalizer, 2, b"")
                model.adds_space = bool(_value(normalizer, 3, 1))
                model.squeezes = bool(_value(normalizer, 4, 1))
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise ModelError(f"{printable(str(path))} is damaged: {error}") from error
    if not model.pieces:
        raise ModelError(f"{printable(str(path))} is damaged: it has no pieces")
    if model.model_type != BPE:
        kind = _KINDS.get(model.model_type, "unknown")
        raise UnsupportedModelError(
            f"{printable(str(path))} has the model type {kind}; only BPE is supported"
        )
    if model.charsmap:
        raise UnsupportedModelError(
            f"{printable(str(path))} normalizes text; only the `identity` normalizer is supported"
        )
    return model


def _piece(data: bytes) -> tuple[str, float, int]:
    values = dict(_fields(data))
    return _value(values, 1, b"").decode(), _value(values, 2, 0.0), _value(values, 3, NORMAL)


def _value(fields: dict[int, Any], number: int, default: T) -> T:
    """A field of the default's type."""
    value = fields.get(number, default)
    if not isinstance(value, type(default)):
        raise ValueError(f"field {number} is of another type")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message: integers, floats, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 5:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == 1:
            at += 8
        elif wire == 2:
            n, at = _varint(data, at)
            if at + n > len(data):
                raise ValueError(f"a field of {n} bytes goes beyond the end")
            yield number, data[at : at + n]
            at += n
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
