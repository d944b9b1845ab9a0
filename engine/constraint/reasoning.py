"""Where an answer stands with its reasoning block: before it, inside, or behind it.

A model opens the block first thing in its answer, if it does at all, and closes it. Inside, the constraint on
the output does not hold; behind it the constraint begins. All that is known follows from the tokens so far,
so a resumed session is where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import ConfigError
from engine.types import Thinking

MAX_IDS = 64  # of a text that opens or closes a block


class ReasoningBlock:
    """Told of every token by `commit`; says what may or must come next.

    token_bytes: what a token contributes to the text, as of `Tokenizer`.
    """

    __slots__ = ("_budget", "_bytes", "_end", "_n", "_open", "_start", "_tail", "_text", "inside", "over")

    def __init__(self, thinking: Thinking, token_bytes: Callable[[int], bytes]) -> None:
        self._start, self._end, self._budget = thinking.start, thinking.end, thinking.budget
        self._bytes = token_bytes
        pieces = [token_bytes(token) for token in self._end]
        # Text may be cut into tokens in many ways; tokens without text are what they are.
        self._text = b"".join(pieces) if all(pieces) else b""
        self._open = 0  # tokens of `start` that have come
        self._n = 0  # tokens inside
        self._tail: list[int] = []  # the last tokens inside
        self.inside = thinking.opened
        self.over = not thinking.opened and not self._start

    @property
    def begun(self) -> bool:
        """Whether a part of what opens the block has come."""
        return self._open > 0

    @property
    def opening(self) -> int | None:
        """The token that would open the block, or goes on to."""
        return None if self.inside or self.over else self._start[self._open]

    @property
    def forced(self) -> int | None:
        """The only token that may come inside, once the budget is spent."""
        if not self.inside or self._budget is None or self._n < self._budget:
            return None
        matched = self._matched()
        return None if not matched and self._broken() else self._end[matched]

    def ambiguous(self, token: int) -> bool:
        """Whether a token may be the first of several that open the block, or of the answer."""
        return not self.begun and len(self._start) > 1 and token == self.opening

    def commit(self, token: int) -> bool:
        """The token that came. True: it is part of what the constraint is about."""
        if self.over:
            return True
        if not self.inside:
            return self._before(token)
        self._n += 1
        self._tail = [*self._tail[-MAX_IDS:], token]
        if self._ended():
            self.inside, self.over = False, True
        return False

    def _before(self, token: int) -> bool:
        if token == self._start[self._open]:
            self._open += 1
            if self._open == len(self._start):
                self.inside = True
            return False
        # White space before the block does no harm; anything else is the answer.
        data = self._bytes(token)
        self.over = bool(self._open) or not data or not data.isspace()
        return True

    def _ended(self) -> bool:
        if tuple(self._tail[-len(self._end) :]) == self._end:
            return True
        return bool(self._text) and self._text in self._tail_bytes()

    def _tail_bytes(self) -> bytes:
        return b"".join(map(self._bytes, self._tail))

    def _matched(self) -> int:
        """How many tokens of `end` the last ones inside are."""
        tail = self._tail
        for n in range(min(len(self._end) - 1, len(tail)), 0, -1):
            if tuple(tail[-n:]) == self._end[:n]:
                return n
        return 0

    def _broken(self) -> bool:
        """Whether the text so far ends inside of a character, which shall come to its end first."""
        data = self._tail_bytes()[-3:]
        for n in (1, 2, 3):
            lead = data[-n] if n <= len(data) else 0
            if lead >= 0xC0:
                return n < (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
            if lead < 0x80:
                return False
        return False


def check(thinking: Thinking, n_vocab: int) -> None:
    """ConfigError for a block that could not be followed."""
    if not thinking.end:
        raise ConfigError("a reasoning block needs the tokens that end it")
    if not thinking.start and not thinking.opened:
        raise ConfigError("a reasoning block needs the tokens that open it, unless the prompt has opened it")
    if thinking.budget is not None and thinking.budget < 0:
        raise ConfigError(
            f"the budget of a reasoning block is {thinking.budget} tokens; it must not be negative"
        )
    for ids in (thinking.start, thinking.end):
        _check_ids(ids, n_vocab)


def _check_ids(ids: Sequence[int], n_vocab: int) -> None:
    if len(ids) > MAX_IDS:
        raise ConfigError(
            f"the marks of a reasoning block have {len(ids)} tokens; at most {MAX_IDS} are taken"
        )
    wrong = next((token for token in ids if not 0 <= token < n_vocab), None)
    if wrong is not None:
        raise ConfigError(f"token id {wrong} is outside of the vocabulary of {n_vocab} tokens")
