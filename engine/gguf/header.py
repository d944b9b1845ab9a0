"""The walk over a GGUF header: bounds first, values later."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple, NoReturn

from engine.gguf.report import printable
from engine.gguf.types import VALUE_FORMATS, Value, ValueType

# Far above every real file, low enough that a hostile one costs little time and memory.
MAX_HEADER = 256 << 20
MAX_KEYS = 1 << 16
MAX_KEY_BYTES = 1 << 16
MAX_STRING = 64 << 20
MAX_ARRAY = 1 << 21
MAX_ARRAY_TOTAL = 1 << 23

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

Fail = Callable[[str], NoReturn]


class Cursor:
    """Bounds-checked reads from the beginning of a file.

    Read, not mapped: a file that is truncated under a mapping kills the process that touches it, and headers
    are also read in the server process.
    """

    def __init__(self, file: BinaryIO, size: int, fail: Fail) -> None:
        self.buf = b""
        self.pos = 0
        self.size = size
        self.fail = fail
        self._file = file

    def need(self, n: int, what: str) -> None:
        """Makes `n` bytes after `pos` available."""
        if self.pos + n > len(self.buf):
            self._grow(self.pos + n, what)

    def _grow(self, end: int, what: str) -> None:
        if end > self.size:
            self.fail(f"truncated or corrupt: {what} would end at byte {end}, but the file has {self.size}")
        if end > MAX_HEADER:
            self.fail(f"{what} would end at byte {end}; a header may have {MAX_HEADER}")
        target = min(self.size, MAX_HEADER, max(end, 2 * len(self.buf), 1 << 20))
        pieces = [self.buf]
        have = len(self.buf)
        while have < target:
            try:
                self._file.seek(have)
                piece = self._file.read(target - have)
            except OSError as error:
                self.fail(f"cannot be read: {error.strerror or error}")
            if not piece:
                self.fail(f"became shorter while it was read ({have} of {self.size} bytes)")
            pieces.append(piece)
            have += len(piece)
        self.buf = b"".join(pieces)

    def u32(self, what: str) -> int:
        self.need(4, what)
        (value,) = _U32.unpack_from(self.buf, self.pos)
        self.pos += 4
        return int(value)

    def u64(self, what: str) -> int:
        self.need(8, what)
        (value,) = _U64.unpack_from(self.buf, self.pos)
        self.pos += 8
        return int(value)

    def name(self, what: str, max_bytes: int) -> str:
        """A key or tensor name. C code reads it too, so no NUL; messages quote it, so nothing unprintable."""
        length = self.u64(f"the length of {what}")
        if not 0 < length < max_bytes:
            self.fail(f"{what} has {length} bytes; expected 1 to {max_bytes - 1}")
        self.need(length, what)
        raw = self.buf[self.pos : self.pos + length]
        self.pos += length
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8: {raw[:60]!r}")
        if not text.isprintable():
            self.fail(f"{what} has control characters: {raw[:60]!r}")
        return text

    def skip_string(self, what: str) -> None:
        length = self.u64(f"the length of {what}")
        if length > MAX_STRING:
            self.fail(f"{what} has {length} bytes; at most {MAX_STRING} are allowed")
        self.need(length, what)
        self.pos += length

    def skip_strings(self, n: int, what: str) -> None:
        # Vocabularies have 10^5 to 10^6 strings: one unpack and one addition for each.
        unpack = _U64.unpack_from
        pos, buf = self.pos, self.buf
        last = len(buf) - 8
        for _ in range(n):
            if pos > last:
                self.pos = pos
                self.need(8, what)
                buf = self.buf
                last = len(buf) - 8
            pos += unpack(buf, pos)[0] + 8
        self.pos = pos
        self.need(0, what)


class Entry(NamedTuple):
    """One metadata value that was checked but not decoded. `n` is None for a scalar."""

    type: ValueType
    n: int | None
    pos: int

    def __str__(self) -> str:
        name = self.type.name.lower()
        return name if self.n is None else f"array of {self.n} {name}"


def read_entries(cursor: Cursor, count: int) -> dict[str, Entry]:
    """All key-value pairs. Leaves the cursor at the first tensor's description."""
    entries: dict[str, Entry] = {}
    in_arrays = 0
    for i in range(count):
        key = cursor.name(f"key {i + 1} of {count}", MAX_KEY_BYTES)
        if key in entries:
            cursor.fail(f"key '{printable(key)}' occurs twice")
        what = f"key '{printable(key)}'"
        entry = _read_entry(cursor, what)
        in_arrays += entry.n or 0
        if in_arrays > MAX_ARRAY_TOTAL:
            cursor.fail(f"{what}: the arrays up to here have {in_arrays} elements; limit {MAX_ARRAY_TOTAL}")
        entries[key] = entry
    return entries


def _value_type(cursor: Cursor, what: str) -> ValueType:
    number = cursor.u32(what)
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"{what} has the unknown value type {number}")


def _read_entry(cursor: Cursor, what: str) -> Entry:
    kind = _value_type(cursor, what)
    n: int | None = None
    if kind is ValueType.ARRAY:
        kind = _value_type(cursor, what)
        n = cursor.u64(what)
        if kind is ValueType.ARRAY:
            cursor.fail(f"{what} is an array of arrays, which no known key has")
        if n > MAX_ARRAY:
            cursor.fail(f"{what} claims {n} array elements; at most {MAX_ARRAY} are allowed")
    pos = cursor.pos
    if kind is ValueType.STRING:
        if n is None:
            cursor.skip_string(what)
        else:
            if n * 8 > (rest := cursor.size - pos):
                cursor.fail(f"truncated or corrupt: {what} claims {n} strings in the last {rest} bytes")
            cursor.skip_strings(n, what)
        return Entry(kind, n, pos)
    size = (1 if n is None else n) * struct.calcsize("<" + VALUE_FORMATS[kind])
    cursor.need(size, what)
    if kind is ValueType.BOOL and (bad := cursor.buf[pos : pos + size].strip(b"\0\1")):
        cursor.fail(f"{what} is a bool of value {bad[0]}; expected 0 or 1")
    cursor.pos += size
    return Entry(kind, n, pos)


class Metadata(Mapping[str, Value]):
    """The key-value pairs. Values are decoded on first access; arrays become lists."""

    def __init__(self, buf: bytes, entries: dict[str, Entry], fail: Fail) -> None:
        self.entries = entries
        self._buf = buf
        self._fail = fail
        self._decoded: dict[str, Value] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __getitem__(self, key: str) -> Value:
        if key not in self._decoded:
            self._decoded[key] = self._decode(key, self.entries[key])
        return self._decoded[key]

    def head(self, key: str, n: int) -> Value:
        """The value, of an array only the first `n` elements."""
        entry = self.entries[key]
        if entry.n is None or key in self._decoded:
            value = self[key]
            return value[:n] if isinstance(value, list) else value
        return self._decode(key, entry._replace(n=min(n, entry.n)))

    def _decode(self, key: str, entry: Entry) -> Value:
        if entry.type is ValueType.STRING:
            texts = self._strings(key, entry)
            return texts if entry.n is not None else texts[0]
        n = 1 if entry.n is None else entry.n
        values = struct.unpack_from(f"<{n}{VALUE_FORMATS[entry.type]}", self._buf, entry.pos)
        return list(values) if entry.n is not None else values[0]

    def _strings(self, key: str, entry: Entry) -> list[str]:
        unpack, buf, pos = _U64.unpack_from, self._buf, entry.pos
        texts: list[str] = []
        append = texts.append
        start = pos
        try:
            for _ in range(1 if entry.n is None else entry.n):
                start = pos + 8
                pos = start + unpack(buf, pos)[0]
                append(buf[start:pos].decode())
        except UnicodeDecodeError:
            which = "" if entry.n is None else f" at index {len(texts)}"
            self._fail(f"key '{printable(key)}' is not UTF-8{which}: {buf[start:pos][:60]!r}")
        return texts
