"""No object of a JSON text has a name twice, which no grammar can say of names that it does not know.

The scanner looks for objects in any text: outside of them it only waits for `{`, and what turns out not to be
JSON is text again. Names are compared as they are written, which is enough: grammars of schemas spell each
character in one way. What a token costs does not depend on how many names there are, or on how long they are.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

_SPACE = frozenset(b" \t\r\n")
_OUTSIDE = frozenset(b' \t\r\n0123456789+-.,:[]{}"') | frozenset(b"truefalsnE")
# A token that begins and ends a name: where one is due, and behind a value.
_WHOLE_NAME = re.compile(rb'\s*"[^"]*"')
_NEXT_NAME = re.compile(rb',\s*"[^"]*"')
_OPENED_NAME = re.compile(rb'"[^"]+$')

TokenMask: TypeAlias = "array[int]"  # uint32: bit i % 32 of word i // 32 is set if token i is allowed
# The mask behind the beginning of a name that is being written, before anything is forbidden; None: unknown.
MaskBehind: TypeAlias = "Callable[[bytes], TokenMask | None]"


class _Place(NamedTuple):
    """The texts from `low` to `high` of a sorted list: those that go on from their first `depth` bytes."""

    low: int
    high: int
    depth: int

    def narrowed(self, texts: Sequence[bytes], byte: int) -> _Place:
        """Those that go on with a byte."""
        low, high, depth = self
        if low < high:

            def key(text: bytes) -> int:
                return text[depth] if depth < len(text) else -1

            low, high = (
                bisect_left(texts, byte, low, high, key=key),
                bisect_right(texts, byte, low, high, key=key),
            )
        return _Place(low, high, depth + 1)


class TokenIndex:
    """Tokens of text by how they begin."""

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int]) -> None:
        self.tokens = tokens
        self.special = frozenset(special)
        ids = [i for i, data in enumerate(tokens) if data and i not in self.special]
        ids.sort(key=tokens.__getitem__)
        self._ids = ids
        self._sorted = [tokens[i] for i in ids]
        self._quoted_ids = [i for i in ids if b'"' in tokens[i]]
        self._quoted = [tokens[i] for i in self._quoted_ids]
        self.whole_names = [i for i in ids if _WHOLE_NAME.match(tokens[i])]
        self.opened_names = [i for i in ids if _OPENED_NAME.search(tokens[i])]
        self.next_names = [i for i in ids if _NEXT_NAME.search(tokens[i])]

    def starting_with(self, prefix: bytes) -> Iterator[int]:
        i = bisect_left(self._sorted, prefix)
        while i < len(self._sorted) and self._sorted[i].startswith(prefix):
            yield self._ids[i]
            i += 1

    def completing(self, names: Sequence[bytes], written: _Place) -> Iterator[int]:
        """Tokens that complete one of several sorted names, each with the quote behind it.

        Goes along names and tokens together, as far as both go on: no farther than there are tokens.
        """
        todo = [(written, _Place(0, len(self._quoted), 0))]
        while todo:
            place, tokens = todo.pop()
            if place.low < place.high and len(names[place.low]) == place.depth:
                yield from self._quoted_ids[tokens.low : tokens.high]
                continue
            while place.low < place.high:
                byte = names[place.low][place.depth]
                behind, matching = place.narrowed(names, byte), tokens.narrowed(self._quoted, byte)
                if matching.low < matching.high:
                    todo.append((behind, matching))
                place = place._replace(low=behind.high)


class _Members:
    """An object that is being written.

    names: sorted, each with the quote behind it. used_up: beginnings of names that all are there.
    """

    __slots__ = ("names", "used_up")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.used_up: set[bytes] = set()

    def copy(self) -> _Members:
        other = _Members()
        other.names, other.used_up = list(self.names), set(self.used_up)
        return other


class _Open(NamedTuple):
    """The innermost object, or array (None), and those around it."""

    members: _Members | None
    around: _Open | None


class UniqueNames:
    """Told of every token of one text. Not for two threads at the same time."""

    __slots__ = (
        "_added",
        "_due",
        "_escaped",
        "_expected",
        "_index",
        "_last",
        "_name",
        "_open",
        "_place",
        "_string",
        "repeated",
    )

    def __init__(self, index: TokenIndex) -> None:
        self._index = index
        self._open: _Open | None = None  # around the end of the text
        self._string = self._escaped = False  # inside of a string, behind a backslash
        self._expected = False  # whether a string would be a name
        self._due = b""  # what may follow behind the string that has just ended
        self._last = 0  # its last byte that is no white space
        self._name: bytearray | None = None  # of what is being written
        self._place = _Place(0, 0, 0)  # the names that begin as it does
        self._added: list[tuple[_Members, bytes]] | None = None  # what a trial would add to objects
        self.repeated = False  # whether the last token led to a name that was there before

    def copy(self) -> UniqueNames:
        """An independent scanner."""
        other = self._trial()
        objects = []
        open_ = self._open
        while open_ is not None:
            objects.append(open_.members)
            open_ = open_.around
        other._added, other._open = None, None
        for members in reversed(objects):
            other._open = _Open(None if members is None else members.copy(), other._open)
        return other

    def _trial(self) -> UniqueNames:
        """A scanner for what could come next: it shares the objects, and leaves them as they are."""
        other = UniqueNames(self._index)
        other._open, other._place, other._expected = self._open, self._place, self._expected
        other._string, other._escaped = self._string, self._escaped
        other._due, other._last = self._due, self._last
        other._name = None if self._name is None else bytearray(self._name)
        other._added = list(self._added or ())
        return other

    @property
    def name_length(self) -> int | None:
        """How many bytes of a name have been written so far; None outside of names."""
        return None if self._name is None else len(self._name)

    def commit(self, data: bytes) -> None:
        """The text of the token that came."""
        self.repeated = False
        for byte in data:
            self._take(byte)

    def _take(self, byte: int) -> None:
        if self._string:
            self._inside(byte)
        elif self._open is not None or byte == 0x7B:  # {
            self._outside(byte)

    def reset(self) -> None:
        """What comes next is part of no JSON that there was."""
        self._open, self._name = None, None
        self._string = self._escaped = self._expected = False
        self._due = b""

    def forbid(self, mask: TokenMask) -> None:
        """Take out of a mask the tokens that would lead to a name that is there already."""
        index = self._index
        members = self._open.members if self._open else None
        if self._name is not None and members is not None:
            for token in index.completing(members.names, self._place):
                _clear(mask, token)
            for text in (*members.used_up, *self._added_to(members)):
                self._clear_leading(mask, self._name, text)
        elif self._expected:
            self._try(mask, index.whole_names)
        if self._open is not None:
            self._try(mask, index.next_names)

    def allows(self, data: bytes) -> bool:
        """Whether a token would repeat no name."""
        other = self._trial()
        other.commit(data)
        return not other.repeated

    def risky(self, mask: TokenMask) -> Iterator[tuple[int, UniqueNames]]:
        """Allowed tokens that begin a name as one begins that is there, and where they lead."""
        if self._open is not None:
            for token in self._index.opened_names:
                if mask[token // 32] >> token % 32 & 1:
                    other = self._trial()
                    other.commit(self._index.tokens[token])
                    if other._name and other._shares_beginning():
                        yield token, other

    def close_off(self, mask_behind: MaskBehind, limit: int) -> None:
        """Forbid the beginnings that only names share that are there. Told when a name begins.

        limit: an object with more names than these has names of every beginning.
        """
        members = self._open.members if self._open else None
        if members is not None and len(members.names) <= limit:
            for name in (*members.names, *self._added_to(members)):
                self._close_off(members, name.removesuffix(b'"'), mask_behind)

    def _close_off(self, members: _Members, start: bytes, mask_behind: MaskBehind) -> None:
        while start:
            mask = mask_behind(start)
            if mask is None:
                return
            for text in (*members.names, *members.used_up, *self._added_to(members)):
                self._clear_leading(mask, start, text)
            if any(mask):
                return
            if self._added is None:
                members.used_up.add(start)
            else:
                self._added.append((members, start))
            start = start[:-1]

    def _added_to(self, members: _Members) -> list[bytes]:
        return [text for owner, text in self._added or () if owner is members]

    def _shares_beginning(self) -> bool:
        """Whether a name in the object begins as the one that is being written."""
        members = self._open.members if self._open else None
        if members is None or self._name is None:
            return False
        return self._place.low < self._place.high or any(
            text.startswith(self._name) for text in self._added_to(members)
        )

    def _clear_leading(self, mask: TokenMask, start: bytes | bytearray, text: bytes) -> None:
        """Forbid the tokens that lead from the beginning of a name to a text."""
        if len(text) > len(start) and text.startswith(start):
            for token in self._index.starting_with(text[len(start) :]):
                _clear(mask, token)

    def _try(self, mask: TokenMask, tokens: Sequence[int]) -> None:
        for token in tokens:
            if mask[token // 32] >> token % 32 & 1 and not self.allows(self._index.tokens[token]):
                _clear(mask, token)

    def _inside(self, byte: int) -> None:
        members = self._open.members if self._open and self._name is not None else None
        if byte < 0x20:  # a line break, say: it was no string of JSON
            self.reset()
            return
        if byte not in _SPACE and byte != 0x22:
            self._last = byte
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:  # \
            self._escaped = True
        elif byte == 0x22:  # "
            self._string = False
            self._due = b",}]" if members is None else b":"
            if members is not None:
                self._complete(members)
            return
        if self._name is not None and members is not None:
            self._name.append(byte)
            self._place = self._place.narrowed(members.names, byte)
            if members.used_up or self._added:
                text = bytes(self._name)
                self.repeated |= text in members.used_up or text in self._added_to(members)

    def _complete(self, members: _Members) -> None:
        assert self._name is not None
        name = bytes(self._name) + b'"'
        place = self._place.narrowed(members.names, 0x22)
        if place.low < place.high or name in self._added_to(members):
            self.repeated = True
        elif self._added is None:
            members.names.insert(place.low, name)
        else:
            self._added.append((members, name))
        self._name = None
        self._expected = False

    def _outside(self, byte: int) -> None:
        open_ = self._open
        if self._due and byte not in _SPACE:
            if byte not in self._due:
                self._begin_again(byte)
                return
            self._due = b""
        if byte == 0x22:
            self._string, self._last = True, 0
            if self._expected and open_ is not None and open_.members is not None:
                self._name = bytearray()
                self._place = _Place(0, len(open_.members.names), 0)
        elif byte == 0x7B:
            self._open = _Open(_Members(), open_)
            self._expected = True
        elif byte == 0x5B:  # [
            self._open = _Open(None, open_)
            self._expected = False
        elif byte in b"}]":
            self._open = open_ and open_.around
            self._expected = False
        elif byte == 0x2C:  # ,
            self._expected = open_ is not None and open_.members is not None
        elif byte not in _OUTSIDE or (self._expected and byte not in _SPACE):
            self.reset()  # it is no JSON

    def _begin_again(self, byte: int) -> None:
        """What looked like the end of a string was the beginning of one: in `use {" {"a": 1}`, say."""
        begins_object = self._last == 0x7B
        self.reset()
        if begins_object:
            for again in (0x7B, 0x22, byte):
                self._take(again)


def _clear(mask: TokenMask, token: int) -> None:
    mask[token // 32] &= ~(1 << token % 32)
