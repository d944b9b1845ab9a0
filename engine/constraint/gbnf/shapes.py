"""What is known of a regular part of a grammar: bytes with which it begins, or may continue once complete.

The sets may be too large, never too small. Sets of bytes are integers of 256 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.constraint.gbnf.parser import Alt, Chars, Node, Repeat, Seq, Text, TokenRef

_ALL = (1 << 256) - 1
_TOKEN = 1 << 0xFF  # no text has this byte; llguidance marks tokens with it


@dataclass(frozen=True, slots=True)
class LexemeShape:
    """Of a regular part. extends: bytes with which a complete text of it may continue."""

    nullable: bool
    first: int
    extends: int
    bytes: int
    single: bool  # exactly one character


_EMPTY = LexemeShape(True, 0, 0, 0, False)


def shape_of(node: Node, part_shape: Callable[[Node], LexemeShape]) -> LexemeShape:
    """The shape of a node; `part_shape` returns those of its parts."""
    match node:
        case Text(text):
            data = text.encode()
            first = 1 << data[0] if data else 0
            return LexemeShape(not data, first, 0, union(1 << b for b in data), len(text) == 1)
        case Chars():
            lead = _lead_bytes(node)
            # What follows the first byte of a character is never the first byte of another.
            return LexemeShape(False, lead, 0, lead, True)
        case Seq(items):
            shape = _EMPTY
            for item in items:
                shape = _joined(shape, part_shape(item))
            return shape
        case Alt(options):
            shape = part_shape(options[0])
            for option in options[1:]:
                shape = _either(shape, part_shape(option))
            return shape
        case Repeat(inner, least, most):
            return _repeated(part_shape(inner), least, most)
    raise AssertionError(node)


def token_shape(token: TokenRef) -> LexemeShape:
    lead = _ALL if token.negated else _TOKEN
    return LexemeShape(False, lead, 0, lead, False)


def union(sets: Iterable[int]) -> int:
    total = 0
    for one in sets:
        total |= one
    return total


def _joined(a: LexemeShape, b: LexemeShape) -> LexemeShape:
    every = a.bytes | b.bytes
    extends = b.extends | ((b.first | a.extends) if b.nullable else 0)
    if a.extends & b.first:
        extends = every
    first = a.first | (b.first if a.nullable else 0)
    single = (a.single and b is _EMPTY) or (b.single and a is _EMPTY)
    return LexemeShape(a.nullable and b.nullable, first, extends, every, single)


def _either(a: LexemeShape, b: LexemeShape) -> LexemeShape:
    every = a.bytes | b.bytes
    if a.first & b.first and not (a.single and b.single):
        extends = every
    else:
        extends = a.extends | b.extends | (b.first if a.nullable else 0) | (a.first if b.nullable else 0)
    return LexemeShape(a.nullable or b.nullable, a.first | b.first, extends, every, a.single and b.single)


def _repeated(a: LexemeShape, least: int, most: int | None) -> LexemeShape:
    if most != 1 and a.extends & a.first:
        extends = a.bytes
    else:
        extends = a.extends | (a.first if least != most or a.nullable else 0)
    return LexemeShape(a.nullable or least == 0, a.first, extends, a.bytes, a.single and least == most == 1)


_LEADS = [(0x00, 0x7F)]  # code points by their first byte in UTF-8
_LEADS += [(i << 6, (i << 6) | 0x3F) for i in range(2, 32)]
_LEADS += [(max(i << 12, 0x800), (i << 12) | 0xFFF) for i in range(16)]
_LEADS += [(max(i << 18, 0x10000), min((i << 18) | 0x3FFFF, 0x10FFFF)) for i in range(5)]
_LEAD_BYTES = [0x00, *range(0xC2, 0xE0), *range(0xE0, 0xF0), *range(0xF0, 0xF5)]


def _lead_bytes(chars: Chars) -> int:
    leads = 0
    for low, high in _complement(chars.ranges) if chars.negated else chars.ranges:
        for c in range(low, min(high, 0x7F) + 1):
            leads |= 1 << c
        for (first, last), byte in zip(_LEADS[1:], _LEAD_BYTES[1:], strict=True):
            if low <= last and high >= first:
                leads |= 1 << byte
    return leads


def _complement(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    gaps, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    if start <= 0x10FFFF:
        gaps.append((start, 0x10FFFF))
    return gaps
