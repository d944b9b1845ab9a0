"""Parsing of output that arrives in pieces, written as if all of it were available.

A parser is a generator that receives one character at a time, so its result does not depend on how tokens
split the text.
"""

from __future__ import annotations

import contextlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TypeVar

from engine.tokenizer.detokenizer import StopMatcher
from server.chat.output import OutputDelta, ToolCallDelta

T = TypeVar("T")
Parsing = Generator[None, str, T]
SPACE = " \t\r\n"


class EndOfText(Exception):
    """The output is complete."""


class UnexpectedText(Exception):
    """The text does not continue as the format requires."""


class MarkerSearch:
    """Markers to search for in free text. Empty ones are ignored."""

    def __init__(self, markers: Sequence[str]) -> None:
        self.markers = [marker for marker in markers if marker]
        starts = "".join(re.escape(marker[0]) for marker in self.markers)
        self.starts = re.compile(f"[{starts}]" if starts else r"(?!)")

    def matcher(self) -> StopMatcher:
        return StopMatcher(self.markers)


class StreamingParser(ABC):
    """Parses an output, or the rest of one. Subclasses implement `read`, which emits what it recognizes.

    names: tools that may be called; a call of anything else is text. limit: how many calls are emitted;
    further ones are dropped.
    """

    def __init__(
        self, names: Collection[str] = (), new_id: Callable[[], str] = str, limit: int | None = None
    ) -> None:
        self.names, self.new_id, self.limit = names, new_id, limit
        self.n_calls = 0
        self.reasoning = False
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, ToolCallDelta] = {}
        self._arguments: dict[int, list[str]] = {}
        self._space = ""  # white space that is content only if more content follows
        self._reasoning_space = ""  # the same of reasoning
        self._unread = ""  # characters to be read again
        self._record: list[str] | None = None  # what was read of a call whose name is not known yet
        # While searching free text: the pattern of characters that may begin a marker, where other text goes.
        self._free_text: tuple[re.Pattern[str], Callable[[str], None]] | None = None
        self._reading = self.read()
        next(self._reading)

    @abstractmethod
    def read(self) -> Parsing[None]:
        """Parse the whole output."""

    def push(self, text: str, last: bool = False) -> OutputDelta:
        """last: the output ends with this text, so nothing is held back any more."""
        send, i = self._reading.send, 0
        while i < len(text):
            if self._free_text is not None:  # no marker begins before one of these characters
                starts, emit = self._free_text
                start = starts.search(text, i)
                end = len(text) if start is None else start.start()
                if end > i:
                    emit(text[i:end])
                    i = end
                    continue
            send(text[i])
            i += 1
        if last:
            self._flush()
        return self._take()

    def _flush(self) -> None:
        with contextlib.suppress(EndOfText, StopIteration):
            self._reading.throw(EndOfText)
        if not self.n_calls:  # after a call it is part of a marker, or insignificant
            self.emit(self._unread)
            self._content.append(self._space)
        self._space = self._unread = ""

    def _take(self) -> OutputDelta:
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        self._content.clear()
        self._reasoning.clear()
        if not self._calls and not self._arguments:
            return OutputDelta(content, reasoning)
        tools = []
        for index in sorted({*self._calls, *self._arguments}):
            call = self._calls.get(index, ToolCallDelta(index))
            arguments = "".join(self._arguments.get(index, ()))
            tools.append(ToolCallDelta(index, call.id, call.name, arguments))
        self._calls.clear()
        self._arguments.clear()
        return OutputDelta(content, reasoning, tuple(tools))

    # --- output, for subclasses

    def emit(self, text: str) -> None:
        """Emit content. White space at its end is held back and dropped before a call."""
        stripped = (self._space + text).rstrip(SPACE)
        self._space = (self._space + text)[len(stripped) :]
        self._content.append(stripped)

    def emit_reasoning(self, text: str) -> None:
        """Emit reasoning. White space at its end is held back and dropped at the end of the block."""
        text = self._reasoning_space + text
        stripped = text.rstrip(SPACE)
        self._reasoning_space = text[len(stripped) :]
        self._reasoning.append(stripped)

    def begin_call(self, name: str) -> None:
        """Begin a tool call. Raises UnexpectedText if there is no such tool."""
        if name not in self.names:
            raise UnexpectedText
        self._record, self._space = None, ""
        self.n_calls += 1
        if self._counts:
            self._calls[self.n_calls - 1] = ToolCallDelta(self.n_calls - 1, self.new_id(), name)

    def emit_arguments(self, text: str) -> None:
        """Emit more of the arguments of the latest call."""
        if self._counts:
            self._arguments.setdefault(self.n_calls - 1, []).append(text)

    def emit_text(self, text: str) -> None:
        """Emit a part of a string in the arguments."""
        self.emit_arguments(json.dumps(text, ensure_ascii=False)[1:-1])

    @property
    def _counts(self) -> bool:
        return self.limit is None or self.n_calls <= self.limit

    # --- input, for subclasses

    def next(self) -> Parsing[str]:
        """The next character. Raises EndOfText."""
        if self._unread:
            character, self._unread = self._unread[0], self._unread[1:]
        else:
            character = yield
        if self._record is not None:
            self._record.append(character)
        return character

    def unread(self, text: str) -> None:
        self._unread = text + self._unread
        if self._record is not None and text:
            del self._record[-len(text) :]

    def until(self, markers: MarkerSearch, emit: Callable[[str], None]) -> Parsing[str]:
        """Read up to the first marker and return it. The text before it goes to `emit`; without a marker, all
        text does.
        """
        matcher, n_held_back = markers.matcher(), 0
        try:
            while True:
                self._free_text = None if n_held_back or self._unread else (markers.starts, emit)
                character = yield from self.next()
                text, marker = matcher.push(character)
                if text:
                    emit(text)
                if marker is not None:
                    return marker
                n_held_back += 1 - len(text)
        except EndOfText:
            if not self.n_calls:  # otherwise the beginning of a marker counts as one
                emit(matcher.flush())
            raise
        finally:
            self._free_text = None

    def text_argument(self, end: MarkerSearch) -> Parsing[None]:
        """Read text up to a marker as a string argument, which is emitted as it arrives."""
        self.emit_arguments('"')
        yield from self.until(end, self.emit_text)
        self.emit_arguments('"')

    def short_text(self, end: str, limit: int = 256) -> Parsing[str]:
        """Read a short text, such as a name, before this end. Raises UnexpectedText if it is longer."""
        text = ""
        while not text.endswith(end):
            text += yield from self.next()
            if len(text) > limit:
                raise UnexpectedText
        return text.removesuffix(end)

    def attempt(self, opener: str, body: Parsing[None]) -> Parsing[None]:
        """Read a call. If it turns out not to be one, its text is content, except at the end after another
        call.
        """
        self._record = []
        try:
            yield from body
        except UnexpectedText:
            self._give_up(opener)
        except EndOfText:
            if not self.n_calls:
                self._give_up(opener)
            raise
        finally:
            self._record = None

    def _give_up(self, opener: str) -> None:
        if self._record is not None:
            record, self._record = self._record, None
            self.emit(opener + "".join(record))

    def leading_space(self) -> Parsing[str]:
        """Read white space up to the next character. If nothing else follows, it is content."""
        space = ""
        try:
            while (character := (yield from self.next())) in SPACE:
                space += character
        except EndOfText:
            self.emit(space)
            raise
        self.unread(character)
        return space

    def after_space(self) -> Parsing[str]:
        """The next character that is not white space."""
        while True:
            character = yield from self.next()
            if character not in SPACE:
                return character

    def accept(self, expected: str) -> Parsing[bool]:
        """Whether this text comes next, after white space. If not, nothing is consumed."""
        seen, stripped = "", ""
        while stripped != expected:
            try:
                seen += yield from self.next()
            except EndOfText:
                self.unread(seen)
                raise
            stripped = seen.lstrip(SPACE)
            if not expected.startswith(stripped):
                self.unread(seen)
                return False
        return True

    def json(self, emit: Callable[[str], None]) -> Parsing[None]:
        """Read one JSON value; its characters go to `emit`. Only strings and brackets are checked."""
        character = yield from self.after_space()
        emit(character)
        if character == '"':
            yield from self._string(emit)
        elif character in "{[":
            yield from self._nested(character, emit)
        elif character in "-0123456789tfn":
            while True:
                character = yield from self.next()
                if character in SPACE or character in ",;}]<`":
                    self.unread(character)
                    return
                emit(character)
        else:
            raise UnexpectedText

    def value(self) -> Parsing[object]:
        """Read one JSON value and decode it."""
        text: list[str] = []
        yield from self.json(text.append)
        try:
            return json.loads("".join(text), strict=False)
        except (ValueError, RecursionError):
            raise UnexpectedText from None

    def _nested(self, opening: str, emit: Callable[[str], None]) -> Parsing[None]:
        closing = {"{": "}", "[": "]"}
        open = [closing[opening]]
        while open:
            character = yield from self.next()
            emit(character)
            if character == '"':
                yield from self._string(emit)
            elif character in "{[":
                open.append(closing[character])
            elif character in "}]" and character != open.pop():
                raise UnexpectedText

    def _string(self, emit: Callable[[str], None]) -> Parsing[None]:
        while True:
            character = yield from self.next()
            emit(character)
            if character == "\\":
                emit((yield from self.next()))
            elif character == '"':
                return
