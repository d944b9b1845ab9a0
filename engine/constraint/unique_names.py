"""No object of a JSON text has a name twice, which no grammar can say of names that it does not know.

The scanner looks for objects in any text: outside of them it only waits for `{`, and what turns out not to be
JSON is text again. Names are compared as they are written, which is enough: grammars of schemas spell each
character in one way.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

_SPACE = frozenset(b" \t\r\n")
_OUTSIDE = frozenset(b' \t\r\n0123456789+-.,:[]{}"') | frozenset(b"truefalsnE")
# A token that begins and ends a name: where one is due, and behind a value.
_WHOLE_NAME = re.compile(rb'\s*"[^"]*"')
_NEXT_NAME = re.compile(rb',\s*"[^"]*"')
_OPENED_NAME = re.compile(rb'"[^"]+$')

TokenMask: TypeAlias = "array[int]"  # uint32: bit i % 32 of word i // 32 is set if token i is allowed
# The mask behind the beginning of a name that is being written, before anything is forbidden; None: unknown.
MaskBehind: TypeAlias = "Callable[[bytes], TokenMask | None]"


class TokenIndex:
    """Tokens of text by how they begin."""

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int]) -> None:
        self.tokens = tokens
        left_out = set(special)
        ids = [i for i, data in enumerate(tokens) if data and i not in left_out]
        ids.sort(key=tokens.__getitem__)
        self._ids = ids
        self._sorted = [tokens[i] for i in ids]
        self.whole_names = [i for i in ids if _WHOLE_NAME.match(tokens[i])]
        self.opened_names = [i for i in ids if _OPENED_NAME.search(tokens[i])]
        self.next_names = [i for i in ids if _NEXT_NAME.search(tokens[i])]

    def starting_with(self, prefix: bytes) -> Iterator[int]:
        i = bisect_left(self._sorted, prefix)
        while i < len(self._sorted) and self._sorted[i].startswith(prefix):
            yield self._ids[i]
            i += 1


class _Members:
    """An object that is being written. forbidden: its names with the quote behind them, and beginnings."""

    __slots__ = ("forbidden", "names")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.forbidden: set[bytes] = set()

    def shares(self, start: bytes) -> bool:
        return any(name.startswith(start) for name in self.names)

    def copy(self) -> _Members:
        other = _Members()
        other.names, other.forbidden = list(self.names), set(self.forbidden)
        return other


class UniqueNames:
    """Told of every token of one text. Not for two threads at the same time."""

    __slots__ = ("_escaped", "_expected", "_index", "_name", "_open", "_string", "repeated")

    def __init__(self, index: TokenIndex) -> None:
        self._index = index
        self._open: list[_Members | None] = []  # objects and arrays (None) around the end of the text
        self._string = self._escaped = False  # inside of a string, behind a backslash
        self._expected = False  # whether a string would be a name
        self._name: bytearray | None = None  # of what is being written
        self.repeated = False  # whether the last token led to a name that was there before

    def copy(self) -> UniqueNames:
        other = UniqueNames(self._index)
        other._open = [None if members is None else members.copy() for members in self._open]
        other._string, other._escaped, other._expected = self._string, self._escaped, self._expected
        other._name = None if self._name is None else bytearray(self._name)
        return other

    @property
    def name(self) -> bytes | None:
        """What has been written of a name so far; None outside of names."""
        return None if self._name is None else bytes(self._name)

    def commit(self, data: bytes) -> None:
        """The text of the token that came."""
        self.repeated = False
        for byte in data:
            if self._string:
                self._inside(byte)
            elif self._open or byte == 0x7B:  # {
                self._outside(byte)

    def forbid(self, mask: TokenMask) -> None:
        """Take out of a mask the tokens that would lead to a name that is there already."""
        index = self._index
        members = self._open[-1] if self._open else None
        if self._name is not None and members is not None:
            for token in self._leading_on(members, bytes(self._name)):
                _clear(mask, token)
        elif self._expected:
            self._try(mask, index.whole_names)
        if self._open:
            self._try(mask, index.next_names)

    def allows(self, data: bytes) -> bool:
        """Whether a token would repeat no name."""
        other = self.copy()
        other.commit(data)
        return not other.repeated

    def risky(self, mask: TokenMask) -> Iterator[tuple[int, UniqueNames]]:
        """Allowed tokens that begin a name as one begins that is there, and where they lead."""
        if any(members is not None and members.names for members in self._open):
            for token in self._index.opened_names:
                if mask[token // 32] >> token % 32 & 1:
                    other = self.copy()
                    other.commit(self._index.tokens[token])
                    members = other._open[-1] if other._open else None
                    if other.name and members is not None and members.shares(other.name):
                        yield token, other

    def close_off(self, mask_behind: MaskBehind) -> None:
        """Forbid the beginnings that only names share that are there. Told when a name begins."""
        members = self._open[-1] if self._open else None
        if members is not None:
            for name in members.names:
                self._close_off(members, name, mask_behind)

    def _close_off(self, members: _Members, start: bytes, mask_behind: MaskBehind) -> None:
        while start:
            mask = mask_behind(start)
            if mask is None:
                return
            for token in self._leading_on(members, start):
                _clear(mask, token)
            if any(mask):
                return
            members.forbidden.add(start)
            start = start[:-1]

    def _leading_on(self, members: _Members, start: bytes) -> Iterator[int]:
        """Tokens that go on from the beginning of a name to one that is forbidden."""
        for forbidden in members.forbidden:
            if forbidden.startswith(start) and len(forbidden) > len(start):
                yield from self._index.starting_with(forbidden[len(start) :])

    def _try(self, mask: TokenMask, tokens: Sequence[int]) -> None:
        for token in tokens:
            if mask[token // 32] >> token % 32 & 1 and not self.allows(self._index.tokens[token]):
                _clear(mask, token)

    def _inside(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:  # \
            self._escaped = True
        elif byte == 0x22:  # "
            self._string = False
            if self._name is not None:
                self._complete(bytes(self._name))
            return
        if self._name is not None:
            self._name.append(byte)
            members = self._open[-1]
            if members is not None and bytes(self._name) in members.forbidden:
                self.repeated = True

    def _complete(self, name: bytes) -> None:
        members = self._open[-1]
        if members is not None:
            self.repeated |= name + b'"' in members.forbidden
            members.names.append(name)
            members.forbidden.add(name + b'"')
        self._name = None
        self._expected = False

    def _outside(self, byte: int) -> None:
        if byte == 0x22:
            self._string = True
            self._name = bytearray() if self._expected else None
        elif byte == 0x7B:
            self._open.append(_Members())
            self._expected = True
        elif byte == 0x5B:  # [
            self._open.append(None)
            self._expected = False
        elif byte in b"}]":
            self._open.pop()
            self._expected = False
        elif byte == 0x2C:  # ,
            self._expected = self._open[-1] is not None
        elif byte not in _OUTSIDE or (self._expected and byte not in _SPACE):
            self._open.clear()  # it is no JSON
            self._expected = False


def _clear(mask: TokenMask, token: int) -> None:
    mask[token // 32] &= ~(1 << token % 32)
