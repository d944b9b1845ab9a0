"""Turns tokens, one at a time, into text that can be sent: whole characters, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol


class TokenBytes(Protocol):
    """The part of a tokenizer that turns one token into bytes."""

    def token_bytes(self, token: int, *, special: bool = False) -> bytes: ...


class Detokenizer:
    """The text of a growing sequence. A character spelled by several tokens appears with the last of them.

    skip_special: control tokens contribute nothing, except `preserved` ones. All pushes and the flush
    together are the bytes of all tokens decoded at once, with U+FFFD for invalid UTF-8.
    """

    def __init__(
        self, tokenizer: TokenBytes, *, skip_special: bool = True, preserved: Collection[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._special, self._preserved = not skip_special, preserved
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that can be shown after one more token; empty while a character is incomplete."""
        special = self._special or token in self._preserved
        return self._decoder.decode(self._tokenizer.token_bytes(token, special=special))

    def flush(self) -> str:
        """At the end: U+FFFD if a character is incomplete. Ready for another sequence afterwards."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Finds the first of several strings in text that comes in pieces.

    The match that is complete first wins, and of those that end together the longest; text before it is
    returned. How the text was split does not matter. This is an Aho-Corasick automaton: each character costs
    constant time however many strings there are, and exactly the longest tail that begins one is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._fail = [0]
        self._match: list[str | None] = [None]  # the longest stop string that ends in this state
        for stop in stops:
            if stop:
                self._add(stop)
        self._link()
        self._state = 0
        self._pending = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """(text that can be sent now, the matched stop string or None). Push no more after a match."""
        state, edges = self._state, self._next
        if len(edges) == 1:
            return text, None
        for i, character in enumerate(text):
            while state and character not in edges[state]:
                state = self._fail[state]
            state = edges[state].get(character, 0)
            stop = self._match[state]
            if stop is not None:
                sent = (self._pending + text[: i + 1])[: -len(stop)]
                self._state, self._pending = 0, ""
                return sent, stop
        depth, self._state = self._depth[state], state
        text = self._pending + text
        self._pending = text[len(text) - depth :]
        return text[: len(text) - depth], None

    def flush(self) -> str:
        """The text that was held back, at the end. Ready for another text afterwards."""
        text, self._pending, self._state = self._pending, "", 0
        return text

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._next[state].get(character)
            if following is None:
                following = self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._fail.append(0)
                self._match.append(None)
            state = following
        self._match[state] = stop

    def _link(self) -> None:
        """Breadth first: the state to fall back to is the longest proper suffix that is a state too."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, following in self._next[state].items():
                fail = self._fail[state]
                while fail and character not in self._next[fail]:
                    fail = self._fail[fail]
                self._fail[following] = self._next[fail].get(character, 0)
                if self._match[following] is None:
                    self._match[following] = self._match[self._fail[following]]
                queue.append(following)
