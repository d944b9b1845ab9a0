"""Damaged copies of a GGUF file, for every test that must survive one.

`mutations(data)` yields small descriptions of damage to the header; `Workfile` applies them to one file in
place, which is far quicker than writing a whole model for each.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
    (1 << 64) - 8,
)


@dataclass(frozen=True)
class Mutation:
    """Bytes written over the file at some places, then perhaps a new (shorter) size."""

    patches: tuple[tuple[int, bytes], ...] = ()
    size: int | None = None

    def __str__(self) -> str:
        patches = ", ".join(f"{pos}: {new.hex()}" for pos, new in self.patches)
        return f"patches [{patches}]" + ("" if self.size is None else f", cut to {self.size} bytes")


def header_regions(data: bytes) -> list[tuple[int, int]]:
    """Ranges of bytes that a reader decides upon: all of the header but the inside of long arrays."""
    regions: list[tuple[int, int]] = []
    pos = 24
    start = 0
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def number(code: str) -> int:
        nonlocal pos
        (value,) = struct.unpack_from("<" + code, data, pos)
        pos += struct.calcsize(code)
        return int(value)

    def skip(n: int) -> None:
        nonlocal pos
        pos += n

    for _ in range(n_keys):
        skip(number("Q"))
        kind, n = number("I"), 1
        if kind == 9:
            kind, n = number("I"), number("Q")
        first = pos
        if kind == 8:
            for _ in range(n):
                skip(number("Q"))
        else:
            skip(n * sizes[kind])
        if pos - first > 64:
            regions.append((start, first + 32))
            start = pos - 32
    for _ in range(n_tensors):
        skip(number("Q"))
        skip(number("I") * 8 + 12)
    regions.append((start, pos))
    return regions


def every_byte(data: bytes, masks: tuple[int, ...] = (0xFF, 0x01, 0x80)) -> Iterator[Mutation]:
    """Each header byte XOR each mask, one at a time."""
    for start, end in header_regions(data):
        for pos in range(start, end):
            for mask in masks:
                yield Mutation(((pos, bytes([data[pos] ^ mask])),))


def mutations(data: bytes, count: int, seed: int = 0) -> Iterator[Mutation]:
    """`count` random damages to the header: flipped bytes, extreme numbers, copied pieces, truncation."""
    rng = random.Random(seed)
    regions = header_regions(data)
    weights = [end - start for start, end in regions]
    end_of_header = regions[-1][1]

    def place() -> int:
        start, end = rng.choices(regions, weights)[0]
        return rng.randrange(start, end)

    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 0:
            yield Mutation(tuple((place(), rng.randbytes(1)) for _ in range(rng.randint(1, 4))))
        elif kind == 1:
            yield Mutation(((place(), struct.pack("<Q", rng.choice(_NUMBERS))),))
        elif kind == 2:
            yield Mutation(((place(), struct.pack("<I", rng.choice(_NUMBERS) & 0xFFFFFFFF)),))
        elif kind == 3:
            source, n = place(), rng.randint(1, 40)
            yield Mutation(((place(), data[source : source + n]),))
        else:
            yield Mutation(size=rng.choice((rng.randrange(end_of_header + 64), rng.randrange(len(data)))))


class Workfile:
    """One copy of a model on disk, damaged and repaired again and again."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self._data = data
        path.write_bytes(data)

    @contextmanager
    def damaged(self, mutation: Mutation) -> Iterator[Path]:
        """The path of the file with the damage in it; undone afterwards."""
        with self.path.open("r+b") as file:
            for pos, new in mutation.patches:
                file.seek(pos)
                file.write(new)
            if mutation.size is not None:
                file.truncate(mutation.size)
        try:
            yield self.path
        finally:
            with self.path.open("r+b") as file:
                for pos, new in mutation.patches:
                    file.seek(pos)
                    file.write(self._data[pos : pos + len(new)])
                file.truncate(len(self._data))
                if mutation.size is not None:
                    file.seek(mutation.size)
                    file.write(self._data[mutation.size :])
