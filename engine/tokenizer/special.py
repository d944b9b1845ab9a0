"""Finds tokens that appear literally in text, before any other processing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.tokenizer.vocab import SPECIAL_TYPES, TokenType, Vocabulary

Fragment = str | int  # text still to be encoded, or a token
_SPACE = " \t\n\v\f\r"


class SpecialTokens:
    """User-defined tokens are always recognized in text, control and unknown ones only with `parse_special`.

    The longest token is cut out first, wherever it occurs, then the next: not the leftmost first.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        types, pieces = vocabulary.types, vocabulary.pieces
        ids = [i for i, kind in enumerate(types) if kind in SPECIAL_TYPES]
        # sorted() is stable: of equally long ones the smaller id comes first.
        ids.sort(key=lambda i: len(pieces[i].encode()), reverse=True)
        self._all = [(i, pieces[i]) for i in ids]
        self._user = [(i, text) for i, text in self._all if types[i] == TokenType.USER_DEFINED]
        self._finders = {flag: _Finder(text for _, text in self._which(flag)) for flag in (False, True)}
        self._lstrip, self._rstrip = vocabulary.lstrip, vocabulary.rstrip

    def _which(self, parse_special: bool) -> list[tuple[int, str]]:
        return self._all if parse_special else self._user

    def partition(self, text: str, parse_special: bool) -> list[Fragment]:
        """`text` as fragments of text and tokens, none empty."""
        if not text:
            return []
        present = self._finders[parse_special].present(text)
        fragments: list[Fragment] = [text]
        if present:
            for token, piece in self._which(parse_special):
                if piece in present:
                    fragments = self._cut(fragments, token, piece)
        return fragments

    def _cut(self, fragments: list[Fragment], token: int, piece: str) -> list[Fragment]:
        cut: list[Fragment] = []
        for fragment in fragments:
            if isinstance(fragment, int):
                cut.append(fragment)
                continue
            parts = fragment.split(piece)
            last = len(parts) - 1
            for i, part in enumerate(parts):
                if i and token in self._rstrip:
                    part = part.lstrip(_SPACE)
                if i < last and token in self._lstrip:
                    part = part.rstrip(_SPACE)
                if part:
                    cut.append(part)
                if i < last:
                    cut.append(token)
        return cut


class _Finder:
    """Which of many strings occur in a text. Time grows with the text, hardly with the number of strings."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = {text for text in texts if text}
        self._by_head: dict[str, dict[int, set[str]]] = {}  # first two characters → length → strings
        for text in self._texts:
            self._by_head.setdefault(text[:2], {}).setdefault(len(text), set()).add(text)
        first = "".join(sorted({text[0] for text in self._texts}))
        self._first = re.compile(f"[{re.escape(first)}]") if first else None

    def present(self, text: str) -> set[str]:
        present: set[str] = set()
        if self._first is None:
            return present
        sought = dict(self._by_head)  # what was found need not be looked for again
        for match in self._first.finditer(text):
            start = match.start()
            head = text[start : start + 2]
            for key in (head, head[0]) if len(head) > 1 else (head,):
                lengths = sought.get(key)
                if not lengths:
                    continue
                new = {c for n, texts in lengths.items() if (c := text[start : start + n]) in texts}
                if new:
                    present |= new
                    left = {n: texts - new for n, texts in lengths.items()}
                    sought[key] = {n: texts for n, texts in left.items() if texts}
        return present
