"""Reading an answer character by character, written as if all of it were there.

A reader is a generator that gets one character at a time, so it finds the same parts however the text was
split.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Generator, Sequence
from typing import TypeVar

from engine.tokenizer.detokenizer import StopMatcher
from server.chat.parser import ParsedOutput, ToolCallDelta

T = TypeVar("T")
Parsing = Generator[None, str, T]
SPACE = " \t\r\n"


class EndOfText(Exception):
    """The text is over."""


class UnexpectedText(Exception):
    """The text does not go on as the format has it."""


class MarkerSearch:
    """Words to look for in free text."""

    def __init__(self, terminals: Sequence[str]) -> None:
        self.terminals = [word for word in terminals if word]
        starts = "".join(re.escape(word[0]) for word in self.terminals)
        self.starts = re.compile(f"[{starts}]" if starts else r"(?!)")

    def matcher(self) -> StopMatcher:
        return StopMatcher(self.terminals)


class StreamingParser:
    """An OutputParser whose subclasses write `read` and say there what they find.

    names: tools that may be called; a call of anything else is text. limit: calls after so many are left out.
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
        self._space = ""  # white space that is content only if more of it follows
        self._again = ""  # characters to be read once more
        self._record: list[str] | None = None  # what was read of a call that has no name yet
        self._free: tuple[re.Pattern[str], Callable[[str], None]] | None = None
        self._reading = self.read()
        next(self._reading)

    def read(self) -> Parsing[None]:
        raise NotImplementedError

    # --- the protocol of an OutputParser

    @property
    def has_calls(self) -> bool:
        return self.n_calls > 0

    def push(self, text: str) -> ParsedOutput:
        send, i = self._reading.send, 0
        while i < len(text):
            if self._free is not None:  # nothing can begin before one of these characters
                starts, emit = self._free
                found = starts.search(text, i)
                end = len(text) if found is None else found.start()
                if end > i:
                    emit(text[i:end])
                    i = end
                    continue
            send(text[i])
            i += 1
        return self._take()

    def flush(self) -> ParsedOutput:
        with contextlib.suppress(EndOfText, StopIteration):
            self._reading.throw(EndOfText)
        if not self.n_calls:  # behind a call it is a part of a mark, or nothing
            self.emit(self._again)
            self._content.append(self._space)
        self._space = self._again = ""
        return self._take()

    def _take(self) -> ParsedOutput:
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        self._content.clear()
        self._reasoning.clear()
        if not self._calls and not self._arguments:
            return ParsedOutput(content, reasoning)
        tools = []
        for index in sorted({*self._calls, *self._arguments}):
            call = self._calls.get(index, ToolCallDelta(index))
            arguments = "".join(self._arguments.get(index, ()))
            tools.append(ToolCallDelta(index, call.id, call.name, arguments))
        self._calls.clear()
        self._arguments.clear()
        return ParsedOutput(content, reasoning, tuple(tools))

    # --- what was found

    def emit(self, text: str) -> None:
        """Content. White space at its end waits for what comes next: before a call it is dropped."""
        kept = (self._space + text).rstrip(SPACE)
        self._space = (self._space + text)[len(kept) :]
        self._content.append(kept)

    def think(self, text: str) -> None:
        self._reasoning.append(text)

    def announce(self, name: str) -> None:
        """A call of a tool begins."""
        if name not in self.names:
            raise UnexpectedText
        self._record, self._space = None, ""
        self.n_calls += 1
        if self._counts:
            self._calls[self.n_calls - 1] = ToolCallDelta(self.n_calls - 1, self.new_id(), name)

    def argue(self, text: str) -> None:
        """More of the arguments of the call that began last."""
        if self._counts:
            self._arguments.setdefault(self.n_calls - 1, []).append(text)

    @property
    def _counts(self) -> bool:
        return self.limit is None or self.n_calls <= self.limit

    # --- reading

    def next(self) -> Parsing[str]:
        """One character. Raises End."""
        if self._again:
            character, self._again = self._again[0], self._again[1:]
        else:
            character = yield
        if self._record is not None:
            self._record.append(character)
        return character

    def unread(self, text: str) -> None:
        self._again = text + self._again
        if self._record is not None and text:
            del self._record[-len(text) :]

    def until(self, openers: MarkerSearch, emit: Callable[[str], None]) -> Parsing[str]:
        """The first of the words; the text before it goes to `say`, and all of it at the end."""
        matcher, held = openers.matcher(), 0
        try:
            while True:
                self._free = None if held or self._again else (openers.starts, emit)
                character = yield from self.next()
                sent, word = matcher.push(character)
                if sent:
                    emit(sent)
                if word is not None:
                    return word
                held += 1 - len(sent)
        except EndOfText:
            if not self.n_calls:  # else what may be a mark is taken for one
                emit(matcher.flush())
            raise
        finally:
            self._free = None

    def attempt(self, opener: str, body: Parsing[None]) -> Parsing[None]:
        """Read a call. If it turns out to be none, what was read is content, but not behind another call."""
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

    def after_space(self) -> Parsing[str]:
        """The next character that is not white space."""
        while True:
            character = yield from self.next()
            if character not in SPACE:
                return character

    def word(self, word: str, *, space: bool = True) -> Parsing[bool]:
        """Whether this word comes next, white space aside. If not, nothing was read."""
        seen, found = "", ""
        while found != word:
            try:
                seen += yield from self.next()
            except EndOfText:
                self.unread(seen)
                raise
            found = seen.lstrip(SPACE) if space else seen
            if not word.startswith(found):
                self.unread(seen)
                return False
        return True

    def json(self, emit: Callable[[str], None]) -> Parsing[None]:
        """One JSON value, its characters to `say`. What is between its brackets is not looked at closely."""
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
        """One JSON value, decoded."""
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
