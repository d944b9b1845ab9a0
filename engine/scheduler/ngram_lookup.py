"""Drafts by lookup: the tokens that followed the last ones at their previous occurrence, in prompt or output.

A match is followed as long as the text agrees with it, as in the match models of data compressors. So it is
known for every token, including those that were not drafted, whether a draft would have been right.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

SIZES = (4, 3, 2)  # of the n-grams that begin a match, the longest first; see `_hashes`
LONGEST = 32  # of a match, as far as its length says something about the next token
LARGEST_TABLE = 1 << 18  # entries; of longer texts old n-grams are overwritten
BACKLOG = 256  # tokens of a prompt that one call of `extend` adds, the last ones first: streams wait for it
# How likely a match of 2, 4, 8, 16 and 32 tokens or more goes on, before anything is known of the text.
FIRST_CHANCES = (0.15, 0.25, 0.5, 0.75, 0.9)
FIRST_WEIGHT = 4  # observations that this counts for
LAST_WEIGHT = 32  # observations after which old ones are forgotten
_FACTORS = (2654435761, 2246822519, 3266489917, 668265263)  # odd, of 32 bits
_LONGER = 374761393  # tells an n-gram that begins with token 0 from the shorter one behind it
_MASK = 0xFFFFFFFF


class NgramLookup:
    """Follows one sequence, whose tokens only grow.

    n_most: tokens that it has in the end at most. `match_length`: how many of the last tokens occurred before
    in this order, 0: fewer than two.
    """

    __slots__ = ("_at", "_backlog", "_chances", "_n", "_shift", "_table", "_weights", "match_length")

    def __init__(self, n_prompt: int, n_most: int) -> None:
        size = min(max((len(SIZES) * n_most - 1).bit_length(), 8), LARGEST_TABLE.bit_length() - 1)
        self._table = array("i", bytes(4 << size))  # by hash: where an n-gram last ended
        self._shift = 32 - size
        self._n = max(n_prompt, SIZES[0]) - 1  # tokens that were followed
        self._backlog = self._n  # tokens before it whose n-grams are still to be entered
        self._at = 0  # the place that the text follows: of the token that should come next
        self.match_length = 0
        self._chances = [0.0, *FIRST_CHANCES]  # by bit length of a match's length, less one
        self._weights = [FIRST_WEIGHT] * len(self._chances)

    def extend(self, tokens: Sequence[int]) -> None:
        """Process the new tokens."""
        for n in range(self._n + 1, len(tokens) + 1):
            if self.match_length:
                hit = tokens[self._at] == tokens[n - 1]
                self._learn(hit)
                self._at += 1
                self.match_length = min(self.match_length + 1, LONGEST) if hit else 0
            self._enter(tokens, n)
        self._n = max(self._n, len(tokens))
        if self._backlog >= SIZES[0]:
            self._enter_backlog(tokens)

    def draft(self, tokens: Sequence[int], n: int) -> list[int]:
        """The next `n` tokens if the match continues; none without a match."""
        if not self.match_length:
            return []
        at, end = self._at, len(tokens)
        period = end - at  # what repeats itself goes on beyond the end
        return [tokens[at + i % period] for i in range(n)]

    def chance(self, i: int) -> float:
        """How likely draft token `i` is right if those before it are."""
        return self._chances[min(self.match_length + i, LONGEST).bit_length() - 1]

    def _learn(self, hit: bool) -> None:
        i = self.match_length.bit_length() - 1
        weight = self._weights[i] = min(self._weights[i] + 1, LAST_WEIGHT)
        self._chances[i] += (hit - self._chances[i]) / weight

    def _enter(self, tokens: Sequence[int], n: int) -> None:
        """Enter the n-grams that end with the first `n` tokens, and look for a match without a good one."""
        table, match_length = self._table, self.match_length
        seeks = match_length < SIZES[0]
        for size, entry in zip(SIZES, _hashes(tokens, n, self._shift), strict=True):
            at = table[entry]
            if seeks and at < n:  # not entered just now, for one of another size with the same hash
                length = _common_suffix(tokens, at, n)
                if length >= size and length > match_length:
                    self._at, self.match_length = at, length
                    seeks = False
            table[entry] = n

    def _enter_backlog(self, tokens: Sequence[int]) -> None:
        """Enter older n-grams, unless a later one is entered already."""
        table, shift, begin = self._table, self._shift, max(self._backlog - BACKLOG, SIZES[0] - 1)
        for n in range(self._backlog, begin, -1):
            for entry in _hashes(tokens, n, shift):
                if not table[entry]:
                    table[entry] = n
        self._backlog = min(self._backlog, begin)


def _hashes(tokens: Sequence[int], n: int, shift: int) -> tuple[int, int, int]:
    """Of the last 4, 3 and 2 of the first `n` tokens."""
    two = tokens[n - 1] * _FACTORS[0] + tokens[n - 2] * _FACTORS[1]
    three = two + tokens[n - 3] * _FACTORS[2] + _LONGER
    four = three + tokens[n - 4] * _FACTORS[3] + _LONGER
    return (four & _MASK) >> shift, (three & _MASK) >> shift, (two & _MASK) >> shift


def _common_suffix(tokens: Sequence[int], a: int, b: int) -> int:
    """How many tokens before `a` equal those before `b`, at most LONGEST."""
    n, limit = 0, min(a, LONGEST)
    while n < limit and tokens[a - 1 - n] == tokens[b - 1 - n]:
        n += 1
    return n
