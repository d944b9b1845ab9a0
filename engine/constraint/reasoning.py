"""Where the output is relative to its reasoning block: before, inside or after it.

A model opens the block at the beginning of its output, if at all, and closes it. The constraint on the output
applies after the block, not inside. All state follows from the tokens so far, so a resumed sequence continues
where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import ConfigError
from engine.types import Reasoning

MAX_IDS = 64  # of a text that opens or closes a block


class ReasoningBlock:
    """Takes every token with `commit`, and says which may or must come next.

    token_bytes: the bytes that a token contributes to the text; see `Tokenizer`.
    """

    __slots__ = ("_budget", "_bytes", "_end", "_n", "_open", "_start", "_tail", "_text", "inside", "over")

    def __init__(self, reasoning: Reasoning, token_bytes: Callable[[int], bytes]) -> None:
        self._start, self._end, self._budget = reasoning.start, reasoning.end, reasoning.budget
        self._bytes = token_bytes
        pieces = [token_bytes(token) for token in self._end]
        # The text of `end` may be split into tokens in many ways, unless it has tokens without text.
        self._text = b"".join(pieces) if all(pieces) else b""
        self._open = 0  # tokens of `start` that have come
        self._n = 0  # tokens inside
        self._tail: list[int] = []  # the last tokens inside
        self.inside = reasoning.opened
        self.over = not reasoning.opened and not self._start

    @property
    def started(self) -> bool:
        """Whether a part of the opening tokens has been generated."""
        return self._open > 0

    @property
    def opening(self) -> int | None:
        """The next of the tokens that open the block; None once it is open or over."""
        return None if self.inside or self.over else self._start[self._open]

    @property
    def forced(self) -> int | None:
        """The only allowed token inside once the budget is spent; None before."""
        if not self.inside or self._budget is None or self._n < self._budget:
            return None
        matched = self._matched()
        return None if not matched and self._splits_character() else self._end[matched]

    def ambiguous(self, token: int) -> bool:
        """Whether a token may be the first of several opening tokens, or of the constrained output."""
        return not self.started and len(self._start) > 1 and token == self.opening

    def commit(self, token: int) -> bool:
        """Take the next token. Returns whether it is part of the constrained output."""
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
        # White space may come before the block; anything else is the constrained output.
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
        """How many tokens of `end` the last tokens inside match."""
        tail = self._tail
        for n in range(min(len(self._end) - 1, len(tail)), 0, -1):
            if tuple(tail[-n:]) == self._end[:n]:
                return n
        return 0

    def _splits_character(self) -> bool:
        """Whether the text ends inside of a UTF-8 character, which must be completed first."""
        data = self._tail_bytes()[-3:]
        for n in (1, 2, 3):
            lead = data[-n] if n <= len(data) else 0
            if lead >= 0xC0:
                return n < (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
            if lead < 0x80:
                return False
        return False


def check_reasoning(reasoning: Reasoning, n_vocab: int) -> None:
    """Raises ConfigError for a block that cannot be enforced."""
    if not reasoning.end:
        raise ConfigError("a reasoning block needs the tokens that end it")
    if not reasoning.start and not reasoning.opened:
        raise ConfigError("a reasoning block needs the tokens that open it, unless the prompt opens it")
    if reasoning.budget is not None and reasoning.budget < 0:
        raise ConfigError(
            f"the budget of a reasoning block is {reasoning.budget} tokens; it must not be negative"
        )
    for ids in (reasoning.start, reasoning.end):
        _check_ids(ids, n_vocab)


def _check_ids(ids: Sequence[int], n_vocab: int) -> None:
    if len(ids) > MAX_IDS:
        raise ConfigError(
            f"the delimiters of a reasoning block have {len(ids)} tokens; at most {MAX_IDS} are supported"
        )
    wrong = next((token for token in ids if not 0 <= token < n_vocab), None)
    if wrong is not None:
        raise ConfigError(f"token id {wrong} is outside of the vocabulary of {n_vocab} tokens")
