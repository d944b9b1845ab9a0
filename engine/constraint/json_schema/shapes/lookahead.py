"""Patterns with look-ahead, or with anchors inside: as intersections and complements of regular expressions.

llguidance has both operations for terminals. Behind a position of a pattern come what is left of the pattern
and then any text: `(?=b)` there is an intersection with what begins with b, `(?!b)` one with its complement,
and `$` one with the empty text. What follows a position is not known inside of a repetition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

from engine.errors import ConfigError

MAX_PATTERN = 4000  # characters
MAX_TEXT = 40_000  # characters of an expression
MAX_STEPS = 1000  # alternatives are followed to the end of the pattern one by one
MAX_DEPTH = 30
MAX_POSITIONS = 60  # look-ahead, `^` and `$`
# Between quotes of JSON each of these has one spelling, and every other character stands for itself, so that
# equal strings are equal texts.
_ESCAPED = {c: json.dumps(chr(c))[1:-1] for c in (*range(32), 34, 92)} | {127: "\\u007f"}
_UNESCAPED = r'[^"\\\x00-\x1F\x7F]'
CHARACTER = rf'{_UNESCAPED}|\\["\\bfnrt]|\\u00(0[0-7bef]|1[0-9a-f]|7f)'
_TOKEN = re.compile(
    r"(?P<ahead>\(\?[=!])|(?P<open>\((?:\?:|\?P?<[^<>=!]+>)?(?!\?))|(?P<close>\))|(?P<bar>\|)|(?P<anchor>[$^])"
    r"|(?P<text>\[\^?\]?(?:\\.|[^]\\])*\]|\\(?:[xuUpP]\{[^}]*\}|x\w\w|u\w{4}|U\w{8}|[pP]\w|[^xuUpPbBAzZGk0-9<>])"
    r"|[^\\()\[{?*+|^$])",
    re.DOTALL | re.ASCII,
)
_TIMES = re.compile(r"([*+?]|\{(\d+)(,?)(\d*)\})\??", re.ASCII)
Language: TypeAlias = str | None  # a part of a terminal in Lark; None: nothing matches


class _Item(NamedTuple):
    """kind: regex, (, (?=, (?!, ^ or $. A group without look-ahead and anchors inside is a regex."""

    kind: str
    regex: str = ""  # of characters as JSON spells them
    inner: Sequence[Sequence[_Item]] = ()
    may_be_empty: bool = False


Next: TypeAlias = Callable[[bool | None], Language]  # what follows, by whether the position is that of `^`


@lru_cache(1)
def byte_tokenizer() -> Any:
    """llguidance's tokenizer of single bytes."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def _character(token: str, ascii: str) -> str:
    """What matches one character. ascii: the classes that are."""
    from llguidance import LLMatcher, regex_to_lark

    text: str = regex_to_lark(r"[^\n]" if token == "." else token, ascii)
    if (len(token) > 1 or token == ".") and LLMatcher.validate_grammar(_grammar_of(text)):
        raise ConfigError(f"{token[:32]!r} with look-ahead, or with ^ or $ inside, is not supported")
    return text


def _grammar_of(regex: str) -> str:
    return f"start: X\nX: /{regex}/"


@lru_cache(1024)
def _as_it_is(token: str) -> str:
    return _character(token, "dws")


@lru_cache(1024)
def _between_quotes(token: str) -> str:
    """What matches one character as JSON spells it."""
    from llguidance import LLMatcher

    text = _character(token, "dw")
    if len(token) == 1 and token != ".":
        return f"(?:{re.escape(_ESCAPED[ord(token)])})" if ord(token) in _ESCAPED else text
    grammar = _grammar_of(text)
    mask = int.from_bytes(LLMatcher(byte_tokenizer(), grammar, log_level=0).compute_bitmask(), "little")
    escapes = [re.escape(spelling) for c, spelling in _ESCAPED.items() if mask >> c & 1]
    if not escapes:
        return text
    others = [f"[{text}&&{_UNESCAPED}]"] if mask & ~sum(1 << c for c in (*_ESCAPED, *range(256, 512))) else []
    return f"(?:{'|'.join(others + escapes)})"


class _Spelling(NamedTuple):
    """How characters are written in the texts that are matched. some: any text but the empty one."""

    spelled: Callable[[str], str]
    any: str
    some: str


_JSON = _Spelling(_between_quotes, f"/({CHARACTER})*/", f"/({CHARACTER})+/")
_PLAIN = _Spelling(_as_it_is, "/(?s:.*)/", "/(?s:.+)/")
_EMPTY = '""'


def content(pattern: str) -> Language:
    """What stands between the quotes of a JSON string in which a pattern is found.

    pattern: as Rust's `regex` reads it, but for look-ahead. Raises ConfigError for what is not supported.
    """
    parsed, writer = _read(pattern, _JSON), _PatternWriter(_JSON)
    first = writer.alternatives(parsed, True, writer.any_text)
    later = writer.alternatives(parsed, False, writer.any_text)
    if later is None:
        return first
    return f"({_JSON.any} {first})" if first == later else writer.union([first, f"({_JSON.some} {later})"])


def whole_text(pattern: str) -> Language:
    """A text that a pattern matches from its beginning to its end. Otherwise as `content`."""
    return _PatternWriter(_PLAIN).alternatives(_read(pattern, _PLAIN), True, lambda at_start: _EMPTY)


def _read(pattern: str, spelling: _Spelling) -> Sequence[Sequence[_Item]]:
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(f"look-ahead in a pattern of more than {MAX_PATTERN} characters is not supported")
    return _PatternReader(pattern, spelling).whole()


class _PatternReader:
    """Reads one pattern."""

    def __init__(self, pattern: str, spelling: _Spelling) -> None:
        self._pattern, self._spelling = pattern, spelling
        self._at = self._positions = 0

    def whole(self) -> Sequence[Sequence[_Item]]:
        alternatives = self._alternatives(0)
        if self._at < len(self._pattern):
            raise self._fault()
        return alternatives

    def _alternatives(self, depth: int) -> Sequence[Sequence[_Item]]:
        alternatives: list[list[_Item]] = [[]]
        while token := _TOKEN.match(self._pattern, self._at):
            kind, text, items = token.lastgroup, token[0], alternatives[-1]
            if kind == "close":
                break
            self._at = token.end()
            self._positions += kind in ("ahead", "anchor")
            if self._positions > MAX_POSITIONS:
                raise ConfigError(f"more than {MAX_POSITIONS} look-aheads, ^ and $ are not supported")
            match kind:
                case "bar":
                    alternatives.append([])
                case "anchor":
                    items.append(_Item(text))
                case "ahead":
                    items.append(_Item(text, inner=self._inside(depth)))
                case "open":
                    items.append(self._repeated(_group(self._inside(depth))))
                case _:
                    items.append(self._repeated(_Item("regex", self._spelling.spelled(text))))
        return alternatives

    def _inside(self, depth: int) -> Sequence[Sequence[_Item]]:
        """What is in parentheses, behind the first."""
        if depth == MAX_DEPTH:
            raise ConfigError(f"groups deeper than {MAX_DEPTH} with look-ahead are not supported")
        inner = self._alternatives(depth + 1)
        if not self._pattern.startswith(")", self._at):
            raise self._fault()
        self._at += 1
        return inner

    def _repeated(self, item: _Item) -> _Item:
        """An item with the number of times that follows it."""
        times = _TIMES.match(self._pattern, self._at)
        if times is None:
            return item
        self._at = times.end()
        symbol, low, comma, high = times.groups()
        least = int(low or symbol == "+")
        most = "1" if symbol == "?" else high if comma or low is None else low
        if item.kind != "regex" and most != "1":
            raise ConfigError("look-ahead, and ^ or $, inside of a repetition are not supported")
        return item._replace(
            regex=f"{item.regex}{{{least},{most or ''}}}", may_be_empty=item.may_be_empty or not least
        )

    def _fault(self) -> ConfigError:
        rest = self._pattern[self._at :]
        for start, name in (("(?<", "look-behind"), ("\\b", "\\b"), ("\\B", "\\B")):
            if rest.startswith(start):
                return ConfigError(f"{name} is not supported")
        if re.match(r"\\[1-9k]", rest):
            return ConfigError("backreferences are not supported")
        return ConfigError(f"{rest[:16]!r} with look-ahead, or with ^ or $ inside, is not supported")


def _group(inner: Sequence[Sequence[_Item]]) -> _Item:
    if any(item.kind != "regex" for items in inner for item in items):
        return _Item("(", inner=inner)
    regex = "|".join("".join(item.regex for item in items) for items in inner)
    empty = any(all(item.may_be_empty for item in items) for items in inner)
    return _Item("regex", f"(?:{regex})", may_be_empty=empty)


class _PatternWriter:
    """Writes parsed patterns as parts of terminals. `following` in its methods: what comes behind."""

    def __init__(self, spelling: _Spelling) -> None:
        self._any = spelling.any
        self._steps = 0

    def any_text(self, at_start: bool | None) -> Language:
        return self._any

    def alternatives(
        self, alternatives: Sequence[Sequence[_Item]], at_start: bool | None, following: Next
    ) -> Language:
        return self.union([self._sequence(items, at_start, following) for items in alternatives])

    def _sequence(self, items: Sequence[_Item], at_start: bool | None, following: Next) -> Language:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ConfigError("look-ahead in so many alternatives is not supported")
        plain = ""
        for i, item in enumerate(items):
            if item.kind != "regex":
                following = partial(self._sequence, items[i + 1 :], following=following)
                return _join(plain, self._special(item, at_start, following))
            plain += item.regex
            at_start = (None if at_start else at_start) if item.may_be_empty else False
        return _join(plain, following(at_start))

    def _special(self, item: _Item, at_start: bool | None, following: Next) -> Language:
        if item.kind == "^":
            if at_start is None:
                raise ConfigError("^ behind what may be empty is not supported")
            return following(True) if at_start else None
        if item.kind == "$":
            return self._meet(_EMPTY, following(at_start))
        if item.kind == "(?=":
            return self._meet(self.alternatives(item.inner, at_start, self.any_text), following(at_start))
        if item.kind == "(?!":
            return self._without(following(at_start), self.alternatives(item.inner, at_start, self.any_text))
        once = self.alternatives(item.inner, at_start, following)
        return self.union([once, following(at_start)]) if item.may_be_empty else once

    def union(self, languages: list[Language]) -> Language:
        options = list(dict.fromkeys(language for language in languages if language is not None))
        if self._any in options or len(options) < 2:
            return self._any if self._any in options else options[0] if options else None
        return _limited(f"({' | '.join(options)})")

    def _meet(self, one: Language, other: Language) -> Language:
        if one is None or other is None:
            return None
        if one == self._any or other in (self._any, one):
            return other if one == self._any else one
        return _limited(f"({one} & {other})")

    def _without(self, one: Language, other: Language) -> Language:
        if one is None or other is None:
            return one
        return None if other == self._any else _limited(f"({one} & ~{other})")


def _join(regex: str, following: Language) -> Language:
    return following if following is None or not regex else _limited(f"(/{regex}/ {following})")


def _limited(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ConfigError("look-ahead in so long a pattern is not supported")
    return text
