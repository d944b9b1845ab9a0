"""Follows one text through a compiled constraint: which tokens may come next, and whether it is complete."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from time import thread_time
from typing import Any

from engine.constraint.unique_names import TokenIndex, TokenMask, UniqueNames
from engine.errors import ConfigError

# Processor time that all masks of one text may take, since other texts wait for them.
_FREE_S = 1.0
_TOKEN_S = 0.02
_COMPLEX = ("too big", "too many expressions", "Too many items", "Current row has", "precomputation failed")
_WHERE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_REGEX_ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)


class NameGuard:
    """Keeps the names of objects unique while a matcher follows the text.

    limit: maximum number of names of an object whose names may have beginnings that only few names share, so
    that it must be determined which are used up; 0: there is no such object. byte_tokens: a token for every
    byte, if the vocabulary has them.
    """

    __slots__ = ("_bytes", "_index", "_limit", "_names")

    def __init__(self, index: TokenIndex, byte_tokens: Mapping[int, int], *, limit: int) -> None:
        self._index, self._bytes, self._limit = index, byte_tokens, limit
        self._names = UniqueNames(index)

    def copy(self) -> NameGuard:
        other = NameGuard(self._index, self._bytes, limit=self._limit)
        other._names = self._names.copy()
        return other

    def forbid(self, matcher: Any, mask: TokenMask) -> None:
        """Remove tokens from a mask. matcher: llguidance's, which computed it."""
        self._names.forbid(mask)
        if self._limit:
            for token, names in list(self._names.risky(mask)):
                behind = matcher.deep_copy()
                behind.consume_token(token)
                self._close_off(names, matcher, self._index.tokens[token], len(mask))
                after = _mask_of(behind, len(mask))
                names.forbid(after)
                if not any(after):
                    mask[token // 32] &= ~(1 << token % 32)

    def allows(self, token: int) -> bool:
        return token in self._index.special or self._names.allows(self._index.tokens[token])

    def commit(self, matcher: Any, token: int, n_words: int) -> None:
        """Take the next token. matcher: llguidance's, before it takes the token."""
        if token in self._index.special:
            self._names.reset()
            return
        data = self._index.tokens[token]
        self._names.commit(data)
        length = self._names.name_length
        if self._limit and length is not None and length < len(data):  # the name began in this token
            self._close_off(self._names, matcher, data, n_words)

    def _close_off(self, names: UniqueNames, matcher: Any, data: bytes, n_words: int) -> None:
        """Determine which beginnings are used up, after a token that began a name."""
        opened = len(data) - (names.name_length or 0)
        start = [self._bytes.get(byte, -1) for byte in data[:opened]]

        def mask_behind(beginning: bytes) -> TokenMask | None:
            tokens = [*start, *(self._bytes.get(byte, -1) for byte in beginning)]
            behind = matcher.deep_copy()
            return None if -1 in tokens or not behind.consume_tokens(tokens) else _mask_of(behind, n_words)

        names.close_off(mask_behind, self._limit)


def _mask_of(matcher: Any, n_words: int) -> TokenMask:
    mask = array("I", bytes(4 * n_words))
    _fill(matcher, mask)
    return mask


def _fill(matcher: Any, mask: TokenMask) -> None:
    address, n = mask.buffer_info()
    matcher.unsafe_compute_mask_ptr(address, 4 * n)


class ConstraintMatcher:
    """Follows one text. Not for concurrent use by two threads.

    Methods raise ConfigError once the text no longer matches or the grammar turns out to be too complex.
    """

    __slots__ = ("_left_s", "_matcher", "_n_words", "_names", "ignored")

    def __init__(
        self, matcher: Any, n_words: int, ignored: tuple[str, ...] = (), names: NameGuard | None = None
    ) -> None:
        self.ignored = ignored  # parts of the constraint that are not enforced
        self._matcher = matcher
        self._names = names
        self._n_words = n_words
        self._left_s = _FREE_S

    def fill(self, mask: TokenMask) -> None:
        """Write the mask of the next token, of `ConstraintCompiler.n_words` words.

        End-of-generation tokens are allowed exactly where the grammar may end.
        """
        start = thread_time()
        _fill(self._matcher, mask)
        if self._matcher.is_error():
            raise self._failure()
        if self._names is not None:
            self._names.forbid(self._matcher, mask)
        self._left_s -= thread_time() - start
        if self._left_s < 0:
            raise ConfigError(
                "it takes too long to find out which tokens are allowed; make it less ambiguous"
            )

    def commit(self, token: int) -> None:
        """Take the next token, which must not end the generation unless the grammar names it."""
        start = thread_time()
        if self._names is not None:
            self._names.commit(self._matcher, token, self._n_words)
        if not self._matcher.consume_token(token):
            raise self._failure()
        self._left_s += _TOKEN_S - (thread_time() - start)

    def accepts(self, token: int) -> bool:
        """Whether `commit` would take a token."""
        names = self._names
        return bool(self._matcher.validate_tokens([token]) == 1) and (names is None or names.allows(token))

    @property
    def may_stop(self) -> bool:
        """Whether the text so far is complete."""
        return bool(self._matcher.is_accepting())

    @property
    def must_stop(self) -> bool:
        """Whether the text so far is complete and nothing can follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def copy(self) -> ConstraintMatcher:
        """An independent matcher in the same state."""
        names = None if self._names is None else self._names.copy()
        return ConstraintMatcher(self._matcher.deep_copy(), self._n_words, self.ignored, names)

    def _failure(self) -> ConfigError:
        return ConfigError(error_line(self._matcher.get_error()))


def error_line(error: str, *, located: bool = False) -> str:
    """The first line of an llguidance error, without the backtrace or the grammar after it.

    located: keep line and column, since the text is the client's own.
    """
    first = error.strip().split("\n", 1)[0].strip()
    if first.startswith("panic"):
        return "the grammar compiler failed"
    if first.startswith("NoExtension"):
        return "nothing matches it"
    if any(hint in first for hint in _COMPLEX):
        return "it is too complex"
    where = _WHERE.match(first)
    reason = first.rpartition("failed to compile JSON schema: ")[2]
    if "regex parse error" in first:
        match = _REGEX_ERROR.search(error)
        reason = f"a regex is not valid: {match[1] if match else 'it cannot be parsed'}"
    elif where is not None:
        reason = reason.removeprefix(where[0])
    if located and where is not None:
        reason = f"line {where[1]}, column {where[2]}: {reason}"
    return reason[:300] or "it is too complex"
